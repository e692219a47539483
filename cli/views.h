// What the commands that show things share.
#pragma once

#include <string>
#include <string_view>

namespace muster::cli {

class Client;
struct Parsed;

// "Key:            value" and a new line, the value folded to the terminal; nothing for an empty value.
void add_line(std::string& out, std::string_view key, const std::string& value);

// muster show queue [NAME...]; returns the exit status.
int show_queues(Client& client, const Parsed& parsed);
int show_reservations(Client& client, const Parsed& parsed);
int show_licenses(Client& client, const Parsed& parsed);

// muster show priority [JOB...]; returns the exit status.
int show_priorities(Client& client, const Parsed& parsed);

}  // namespace muster::cli

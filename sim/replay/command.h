// `muster-sim replay`, which `muster simulate` runs: reads the options, replays, reports.
#pragma once

namespace muster::sim {

// `argv[0]` is the name that begins every message. Returns the program's exit status: 0, 1 for what failed, 2 for wrong
// usage. Uses getopt_long, so one call at a time.
int replay_command(int argc, char** argv);

}  // namespace muster::sim

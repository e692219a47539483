// A job script as `muster submit` reads it: its option lines, their values, and the request that comes of them.
#include "cli/job_options.h"
#include "lib/wire/codec.h"
#include "lib/wire/muster.pb.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace muster;
  cli::Surroundings around;
  around.work_dir = "/home/ann";
  around.host = "login";
  around.environment = {"PATH=/bin", "HOME=/home/ann", "TERM=dumb"};
  around.now = Instant::from_s(1'700'000'000);
  const auto options = cli::build_submit({}, {}, "job.sh", std::string(fuzz::text_of(data, size)), around);
  if (!options.ok()) {
    // These messages repeat words of the script; report() makes them printable.
    MUSTER_CHECK(options.error().code != ErrorCode::kInternal && !options.error().message.empty());
    return 0;
  }
  // What the command line accepts, the controller can read.
  pb::JobSpec message;
  wire::to_pb(options->spec, message);
  const auto read = wire::from_pb(message);
  MUSTER_CHECK(read.ok() && *read == options->spec);
  return 0;
}

// The main() of a fuzz target in a build without libFuzzer: runs the target over every file of the corpus folders that
// are named as arguments, and over damaged copies of each, made from a fixed seed. So each ordinary test run keeps what
// fuzzing found, with any compiler, and a few seconds' worth of new damage on top.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

// Damaged copies made of each file: enough to try every kind of damage often, few enough for a second in all.
constexpr int kCopiesPerFile = 200;

// SplitMix64: a small generator with a public definition, so that a failure can be made again anywhere.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    state_ += 0x9e3779b97f4a7c15U;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }
  std::size_t below(std::size_t bound) { return static_cast<std::size_t>(next() % bound); }

 private:
  std::uint64_t state_;
};

std::vector<std::uint8_t> damaged(std::vector<std::uint8_t> bytes, Random& random) {
  const std::size_t strokes = 1 + random.below(4);
  for (std::size_t i = 0; i < strokes; ++i) {
    const std::size_t at = bytes.empty() ? 0 : random.below(bytes.size());
    const auto byte = static_cast<std::uint8_t>(random.next());
    switch (bytes.empty() ? 1 : random.below(5)) {
      case 0:
        bytes[at] = byte;
        break;
      case 1:
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), byte);
        break;
      case 2:
        bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 3:
        bytes.resize(at);
        break;
      default: {  // a stretch again, which makes lists long and nesting deep
        const std::size_t length = 1 + random.below(bytes.size() - at);
        const std::vector<std::uint8_t> stretch(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                                                bytes.begin() + static_cast<std::ptrdiff_t>(at + length));
        bytes.insert(bytes.end(), stretch.begin(), stretch.end());
      }
    }
  }
  return bytes;
}

void run(const std::vector<std::uint8_t>& bytes) {
  // A copy of exactly that size, so that AddressSanitizer sees a read of one byte beyond.
  const std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t files = 0;
  run({});
  for (int i = 1; i < argc; ++i) {
    std::error_code error;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i], error)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream in(entry.path(), std::ios::binary);
      const std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
      ++files;
      run(bytes);
      Random random(files);
      for (int copy = 0; copy < kCopiesPerFile; ++copy) run(damaged(bytes, random));
    }
    if (error || files == 0) {
      std::fprintf(stderr, "the corpus %s cannot be read or is empty: name a folder with at least one file\n", argv[i]);
      return 1;
    }
  }
  std::printf("%zu files and %d damaged copies of each\n", files, kCopiesPerFile);
  return 0;
}

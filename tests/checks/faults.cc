// Does what a sanitizer must find: sanitizers_test.py proves with it that a run with sanitizers can fail.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>

namespace {

int g_raced = 0;

int overflow() {
  volatile int largest = std::numeric_limits<int>::max();
  return largest + 1;
}

int use_after_free() {
  int* volatile freed = new int(1);
  delete freed;
  return *freed;
}

int leak() {
  int* volatile lost = nullptr;
  for (int i = 0; i < 100; ++i) lost = new int(i);  // the last ones may still be found on the stack
  return *lost;
}

int race() {
  std::thread other([] { ++g_raced; });
  ++g_raced;
  other.join();
  return g_raced;
}

}  // namespace

int main(int argc, char** argv) {
  const char* what = argc == 2 ? argv[1] : "";
  int value = 0;
  if (std::strcmp(what, "overflow") == 0) {
    value = overflow();
  } else if (std::strcmp(what, "use-after-free") == 0) {
    value = use_after_free();
  } else if (std::strcmp(what, "leak") == 0) {
    value = leak();
  } else if (std::strcmp(what, "race") == 0) {
    value = race();
  } else if (std::strcmp(what, "abort") == 0) {
    std::abort();
  } else if (std::strcmp(what, "nothing") != 0) {
    std::fprintf(stderr, "unknown fault \"%s\"\n", what);
    return 2;
  }
  std::printf("%d\n", value);
  return 0;
}

// Each rank prints the CPUs that it may use and those on which its threads run: what `-c` and --cpu-bind give a program of
// MPI ranks with threads.
#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace {

// "0-3,8": the CPUs of the calling thread.
std::string allowed_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) {
    return "unknown";
  }
  std::string text;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) {
      continue;
    }
    int last = cpu;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) {
      ++last;
    }
    text += (text.empty() ? "" : ",") + std::to_string(cpu) + (last > cpu ? "-" + std::to_string(last) : "");
    cpu = last;
  }
  return text;
}

int threads_of_a_rank() {
  const char* asked = std::getenv("MUSTER_CPUS_PER_TASK");
  const int threads = asked != nullptr ? std::atoi(asked) : 1;
  return threads > 0 ? threads : 1;
}

}  // namespace

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  int rank = 0;
  int ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  char host[256] = "";
  gethostname(host, sizeof host - 1);

  const int count = threads_of_a_rank();
  std::vector<double> sums(static_cast<std::size_t>(count));
  std::vector<std::thread> threads;
  for (int t = 0; t < count; ++t) {
    threads.emplace_back([&sums, t, count] {
      double sum = 0;
      for (int i = t; i < 1'000'000; i += count) {
        sum += 1.0 / (1.0 + i);
      }
      sums[static_cast<std::size_t>(t)] = sum;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  double mine = 0;
  for (const double sum : sums) {
    mine += sum;
  }
  double all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  std::printf("rank %d of %d on %s: %d threads on CPUs %s, sum of all %.6f\n", rank, ranks, host, count,
              allowed_cpus().c_str(), all);
  MPI_Finalize();
  return 0;
}

// Heat in a square plate, solved with MPI: an example of the kind of program that Muster queues.
//
// The plate is the unit square with (N+2) x (N+2) points; its edges are held at zero and it starts with a bump,
// u(x, y) = sin(pi x) sin(pi y). One Jacobi iteration replaces each inner point by the mean of its four neighbours. The
// bump is an eigenvector of that operation with the eigenvalue cos(pi h), h = 1/(N+1), so after k iterations the exact
// answer of the *discrete* problem is cos(pi h)^k times the bump: every point of every rank can be checked to rounding.
// The rows are dealt out to the ranks, which swap their outermost rows with MPI_Sendrecv in each iteration.
//
//   heat [--size N] [--iterations K]
//
// Prints one line, `heat: 8 ranks on 4 nodes (n1 n2 n3 n4), ... residual ... error ... PASS`, and exits with 0; or
// FAIL, and 1.
#include <mpi.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numbers>
#include <set>
#include <string>
#include <vector>

namespace {

struct Options {
  int size = 512;        // inner points along one side
  int iterations = 200;  // Jacobi iterations; fixed, so that the answer is known
};

// Rounding adds up to far less than this over any number of iterations that the options allow.
constexpr double kErrorMax = 1e-10;
constexpr int kSizeMax = 32'768;
constexpr int kIterationsMax = 1'000'000;

// The rows first .. first + count - 1 of the inner rows, numbered from 1, belong to `rank`.
struct Rows {
  int first;
  int count;
};

Rows rows_of(int rank, int ranks, int size) {
  const int share = size / ranks;
  const int rest = size % ranks;
  return {1 + rank * share + std::min(rank, rest), share + (rank < rest ? 1 : 0)};
}

bool parse_number(const char* text, int max, int& number) {
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  if (end == text || *end != '\0' || value < 1 || value > max) return false;
  number = static_cast<int>(value);
  return true;
}

bool parse(int argc, char** argv, Options& options) {
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) return false;
    if (std::strcmp(argv[i], "--size") == 0) {
      if (!parse_number(argv[i + 1], kSizeMax, options.size)) return false;
    } else if (std::strcmp(argv[i], "--iterations") == 0) {
      if (!parse_number(argv[i + 1], kIterationsMax, options.iterations)) return false;
    } else {
      return false;
    }
  }
  return true;
}

// One rank's band of the plate: `count` rows of its own between two halo rows, each row with its two edge points.
class Band {
 public:
  Band(Rows rows, int size) : rows_(rows), size_(size), width_(static_cast<std::size_t>(size) + 2) {
    now_.assign((static_cast<std::size_t>(rows.count) + 2) * width_, 0.0);
    for (int i = 0; i < rows.count + 2; ++i) {
      for (int j = 1; j <= size; ++j) now_[at(i, j)] = bump(rows.first - 1 + i, j);
    }
    next_ = now_;
  }

  // The neighbours' outermost rows become this band's halo rows. At the plate's edge the neighbour is MPI_PROC_NULL.
  void exchange(int above, int below) {
    const int count = size_;
    MPI_Sendrecv(&now_[at(1, 1)], count, MPI_DOUBLE, above, 0, &now_[at(rows_.count + 1, 1)], count, MPI_DOUBLE, below,
                 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Sendrecv(&now_[at(rows_.count, 1)], count, MPI_DOUBLE, below, 1, &now_[at(0, 1)], count, MPI_DOUBLE, above, 1,
                 MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  }

  void step() {
    for (int i = 1; i <= rows_.count; ++i) {
      const double* up = &now_[at(i - 1, 0)];
      const double* row = &now_[at(i, 0)];
      const double* down = &now_[at(i + 1, 0)];
      double* out = &next_[at(i, 0)];
      for (int j = 1; j <= size_; ++j) out[j] = 0.25 * (up[j] + down[j] + row[j - 1] + row[j + 1]);
    }
    now_.swap(next_);
  }

  // The largest change of the last iteration.
  [[nodiscard]] double residual() const {
    double largest = 0.0;
    for (int i = 1; i <= rows_.count; ++i) {
      for (int j = 1; j <= size_; ++j) largest = std::max(largest, std::fabs(now_[at(i, j)] - next_[at(i, j)]));
    }
    return largest;
  }

  // The largest distance from the exact answer.
  [[nodiscard]] double error(int iterations) const {
    const double factor = std::pow(std::cos(std::numbers::pi / (size_ + 1)), iterations);
    double largest = 0.0;
    for (int i = 1; i <= rows_.count; ++i) {
      for (int j = 1; j <= size_; ++j) {
        largest = std::max(largest, std::fabs(now_[at(i, j)] - factor * bump(rows_.first - 1 + i, j)));
      }
    }
    return largest;
  }

 private:
  [[nodiscard]] std::size_t at(int i, int j) const {
    return static_cast<std::size_t>(i) * width_ + static_cast<std::size_t>(j);
  }
  [[nodiscard]] double bump(int i, int j) const {
    if (i < 1 || i > size_) return 0.0;
    const double h = std::numbers::pi / (size_ + 1);
    return std::sin(h * i) * std::sin(h * j);
  }

  Rows rows_;
  int size_;
  std::size_t width_;
  std::vector<double> now_;
  std::vector<double> next_;
};

// The names of the nodes that the ranks run on, each once, in the order of the ranks; on rank 0 only.
std::vector<std::string> node_names(int rank, int ranks) {
  char name[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  MPI_Get_processor_name(name, &length);
  std::vector<char> all(rank == 0 ? static_cast<std::size_t>(ranks) * MPI_MAX_PROCESSOR_NAME : 0);
  MPI_Gather(name, MPI_MAX_PROCESSOR_NAME, MPI_CHAR, all.data(), MPI_MAX_PROCESSOR_NAME, MPI_CHAR, 0, MPI_COMM_WORLD);
  std::vector<std::string> names;
  std::set<std::string> seen;
  for (std::size_t i = 0; i < all.size(); i += MPI_MAX_PROCESSOR_NAME) {
    std::string node(&all[i]);
    if (seen.insert(node).second) names.push_back(std::move(node));
  }
  return names;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int rank = 0;
  int ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);

  Options options;
  if (!parse(argc, argv, options) || options.size < ranks) {
    if (rank == 0) {
      std::fprintf(stderr,
                   "heat: usage: heat [--size N] [--iterations K], N at least the number of ranks and at most %d, "
                   "K at most %d\n",
                   kSizeMax, kIterationsMax);
    }
    MPI_Finalize();
    return 2;
  }

  const int above = rank == 0 ? MPI_PROC_NULL : rank - 1;
  const int below = rank == ranks - 1 ? MPI_PROC_NULL : rank + 1;
  Band band(rows_of(rank, ranks, options.size), options.size);
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  for (int i = 0; i < options.iterations; ++i) {
    band.exchange(above, below);
    band.step();
  }
  MPI_Barrier(MPI_COMM_WORLD);
  const double seconds = MPI_Wtime() - start;

  const double mine[2] = {band.residual(), band.error(options.iterations)};
  double worst[2] = {};
  MPI_Allreduce(mine, worst, 2, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  const std::vector<std::string> names = node_names(rank, ranks);

  // NaN compares false, so a broken answer fails too.
  const bool pass = worst[1] < kErrorMax;
  if (rank == 0) {
    std::string list;
    for (const std::string& name : names) list += (list.empty() ? "" : " ") + name;
    std::printf(
        "heat: %d ranks on %zu node%s (%s), %d x %d points, %d iterations in %.2f s, residual %.3e, error %.1e %s\n",
        ranks, names.size(), names.size() == 1 ? "" : "s", list.c_str(), options.size, options.size, options.iterations,
        seconds, worst[0], worst[1], pass ? "PASS" : "FAIL");
    std::fflush(stdout);
  }
  MPI_Finalize();
  return pass ? 0 : 1;
}

#include "sim/replay/orders.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace muster::sim {
namespace {

double cost_of(LiteratureCost cost, double s, double w, double e, double n) {
  switch (cost) {
    case LiteratureCost::kFcfs:
      return s;
    case LiteratureCost::kSjf:
      return e;
    case LiteratureCost::kSaf:
      return e * n;
    case LiteratureCost::kWfp3:
      return -std::pow(w / e, 3) * n;
    case LiteratureCost::kUnicef:
      return -w / (std::log2(std::max(n, 2.0)) * e);
  }
  return 0;
}

}  // namespace

std::int64_t place_of_double(double value) {
  // Positive doubles compare as the integers of their bits do; negative ones the other way round.
  const auto bits = std::bit_cast<std::int64_t>(value);
  return bits >= 0 ? bits : INT64_MIN - bits;
}

std::int64_t LiteratureOrder::points(const JobSpec& spec, Instant since, Instant now) const {
  const auto s = static_cast<double>(since.seconds());
  const auto w = static_cast<double>((now - since).seconds());
  const auto e = static_cast<double>(spec.time_limit.seconds());
  const auto n = static_cast<double>(spec.ntasks);
  return -place_of_double(cost_of(cost_, s, w, e, n));
}

}  // namespace muster::sim

#include "core/sched/fair_share.h"

#include <algorithm>
#include <bit>

namespace muster::sched {
namespace {

constexpr unsigned kFractionBits = 60;
constexpr std::uint64_t kOne = std::uint64_t{1} << kFractionBits;
// From here on the factor is below 2^-16, which is none.
constexpr std::uint64_t kHalvingsMax = 17;

// part / whole, at most 1.
std::uint64_t fraction(Uint128 part, Uint128 whole) {
  if (part >= whole) {
    return whole == 0 ? 0 : kOne;
  }
  // The quotient needs 60 bits above the part.
  const auto high = static_cast<std::uint64_t>(whole >> 64U);
  const unsigned bits = high != 0 ? 128 - static_cast<unsigned>(std::countl_zero(high)) : 64;
  const unsigned drop = bits > 68 ? bits - 68 : 0;
  return static_cast<std::uint64_t>(((part >> drop) << kFractionBits) / (whole >> drop));
}

std::uint64_t times(std::uint64_t fraction_q60, std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<std::uint64_t>(Uint128{fraction_q60} * part / whole);
}

}  // namespace

std::uint32_t fair_share_factor_q16(std::uint64_t use, std::uint64_t shares) {
  if (shares == 0 || use / shares >= kHalvingsMax) {
    return 0;
  }
  const Uint128 halvings_q62 = (Uint128{use} << 62U) / shares;
  return static_cast<std::uint32_t>(exp2_negative_q63(halvings_q62) >> 47U);
}

FairShare::FairShare(const Accounts& accounts, Instant now)
    : accounts_(&accounts), now_(now), everything_(accounts.used("", "", now)) {}

FairShare::Standing FairShare::below(const Standing* above, std::uint32_t shares, std::uint64_t level,
                                     Uint128 used) const {
  Standing s;
  s.shares = times(above == nullptr ? kOne : above->shares, shares, level);
  s.use = fraction(used, everything_);
  s.effective = s.use;
  if (above != nullptr) {
    // Sums are charged apart from their parts, so the part may be the larger one by a rounding.
    const std::uint64_t others = above->effective > s.use ? above->effective - s.use : 0;
    s.effective = s.use + times(others, shares, level);
  }
  s.factor_q16 = fair_share_factor_q16(s.effective, s.shares);
  return s;
}

const FairShare::Standing& FairShare::of_account(const std::string& name) const {
  const auto known = known_.find({name, ""});
  if (known != known_.end()) {
    return known->second;
  }
  Standing s;
  if (const Account* account = accounts_->account(name)) {
    const Standing* above = account->parent.empty() ? nullptr : &of_account(account->parent);
    s = below(above, account->shares, accounts_->shares_below(account->parent), accounts_->used(name, "", now_));
  }
  return known_.emplace(std::pair(name, std::string()), s).first->second;
}

const FairShare::Standing& FairShare::of(const std::string& account, const std::string& user) const {
  const auto known = known_.find({account, user});
  if (known != known_.end()) {
    return known->second;
  }
  const User* record = accounts_->user(user);
  const Association* own = record == nullptr ? nullptr : record->association(account);
  const Standing& above = of_account(account);
  Standing s = above;
  if (own != nullptr) {
    s = below(&above, own->shares, accounts_->shares_below(account), accounts_->used(account, user, now_));
  }
  return known_.emplace(std::pair(account, user), s).first->second;
}

}  // namespace muster::sched

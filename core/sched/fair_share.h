// FairShare: how far accounts and users are below or above their shares, for one moment. What is asked for is computed once.
//
// The formula is that of Slurm's classic fair share (https://slurm.schedmd.com/classic_fair_share.html): shares and use of
// an account are divided among those below it. With the fraction S of the shares, the fraction U of all use and the
// effective use E,
//
//     E = U for what stands at the top, else E = U + (E_above - U) * shares / shares of all siblings
//     factor = 2^(-E / S)
//
// so the factor is 1 without any use, 1/2 where use is what the shares promise, and near 0 far above that.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "core/sched/accounts.h"

namespace muster::sched {

class FairShare {
 public:
  // Fractions in units of 2^-60.
  struct Standing {
    std::uint64_t shares = 0;
    std::uint64_t use = 0;
    std::uint64_t effective = 0;
    std::uint32_t factor_q16 = 0;  // 65536: the best
  };

  // `accounts` must outlive it and not change.
  FairShare(const Accounts& accounts, Instant now);

  // Of the user in the account; of the account where the user has no place of its own in it. Of an account that is not
  // defined: nothing, with factor 0.
  [[nodiscard]] const Standing& of(const std::string& account, const std::string& user) const;
  [[nodiscard]] const Standing& of_account(const std::string& account) const;

 private:
  [[nodiscard]] Standing below(const Standing* above, std::uint32_t shares, std::uint64_t level, Uint128 used) const;

  const Accounts* accounts_;
  Instant now_;
  Uint128 everything_;
  mutable std::map<std::pair<std::string, std::string>, Standing> known_;
};

// 2^(-use / shares) in units of 2^-16; both are fractions in the same units.
[[nodiscard]] std::uint32_t fair_share_factor_q16(std::uint64_t use, std::uint64_t shares);

}  // namespace muster::sched

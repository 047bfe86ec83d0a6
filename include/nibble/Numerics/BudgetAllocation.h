//===- BudgetAllocation.h - The best choices within a budget ----*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_NUMERICS_BUDGETALLOCATION_H
#define NIBBLE_NUMERICS_BUDGETALLOCATION_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace nibble {

/// What a way to store an item takes, and what it costs the model.
struct AllocationChoice {
  uint64_t bytes = 0;
  /// At least 0.
  double loss = 0;
};

/// One choice for each item, so that the sum of losses is the least within a
/// number of bytes: the multiple-choice knapsack problem, solved by dynamic
/// programming over all budgets at once. What an item takes beyond its smallest
/// choice is counted in steps of 1/65536 of the whole range, rounded up
/// (exactly where the greatest common divisor is no less): budgets are kept,
/// and the loss is at most that of the true optimum for a budget smaller by one
/// step an item.
class BudgetAllocation {
public:
  /// `choices[i]`: at least one and at most 255 for item i.
  explicit BudgetAllocation(std::vector<std::vector<AllocationChoice>> choices);

  /// For each item the index of its choice; std::nullopt where the smallest
  /// choices take more than `bytes`.
  std::optional<std::vector<size_t>> allocateWithin(uint64_t bytes) const;

  /// The fewest bytes with a loss of at most `loss`; std::nullopt where none
  /// is that good.
  std::optional<std::vector<size_t>> allocateForLoss(double loss) const;

  /// Bytes and loss of all items together.
  AllocationChoice evaluate(const std::vector<size_t> &indices) const;

  /// The best losses of up to `points` budgets, evenly spaced, fewest bytes
  /// first, each with what it really takes.
  std::vector<AllocationChoice> getCurve(size_t points) const;

private:
  std::vector<size_t> backtrack(size_t steps) const;

  std::vector<std::vector<AllocationChoice>> choices;
  /// Of the smallest choices together.
  uint64_t smallest = 0;
  uint64_t step = 1;
  /// The least loss within `smallest` + i * `step` bytes.
  std::vector<double> best;
  /// [items, best.size()]: the choice that it takes.
  std::vector<uint8_t> taken;
};

} // namespace nibble

#endif // NIBBLE_NUMERICS_BUDGETALLOCATION_H

//===- BudgetAllocation.cpp - The best choices within a budget ------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/BudgetAllocation.h"

#include <algorithm>
#include <limits>
#include <numeric>

using namespace nibble;

/// Of the range between the smallest and the largest total.
static constexpr uint64_t resolution = 65536;

static uint64_t findSmallest(const std::vector<AllocationChoice> &choices) {
  uint64_t bytes = choices.front().bytes;
  for (const AllocationChoice &choice : choices)
    bytes = std::min(bytes, choice.bytes);
  return bytes;
}

BudgetAllocation::BudgetAllocation(
    std::vector<std::vector<AllocationChoice>> given)
    : choices(std::move(given)) {
  uint64_t range = 0, divisor = 0;
  for (const std::vector<AllocationChoice> &item : choices) {
    uint64_t least = findSmallest(item), most = 0;
    for (const AllocationChoice &choice : item) {
      most = std::max(most, choice.bytes - least);
      divisor = std::gcd(divisor, choice.bytes - least);
    }
    smallest += least;
    range += most;
  }
  step = std::max({divisor, (range + resolution - 1) / resolution,
                   static_cast<uint64_t>(1)});

  // Rounding up may take an item past the range.
  size_t budgets = range / step + choices.size() + 1;
  best.assign(budgets, 0);
  taken.resize(choices.size() * budgets);
  std::vector<double> next(budgets);
  for (size_t item = 0; item < choices.size(); ++item) {
    uint64_t least = findSmallest(choices[item]);
    std::fill(next.begin(), next.end(),
              std::numeric_limits<double>::infinity());
    uint8_t *chosen = &taken[item * budgets];
    for (size_t index = 0; index < choices[item].size(); ++index) {
      const AllocationChoice &choice = choices[item][index];
      size_t cost = (choice.bytes - least + step - 1) / step;
      for (size_t budget = cost; budget < budgets; ++budget)
        if (double loss = best[budget - cost] + choice.loss;
            loss < next[budget]) {
          next[budget] = loss;
          chosen[budget] = static_cast<uint8_t>(index);
        }
    }
    best.swap(next);
  }
}

std::vector<size_t> BudgetAllocation::backtrack(size_t steps) const {
  std::vector<size_t> indices(choices.size());
  for (size_t item = choices.size(); item-- > 0;) {
    indices[item] = taken[item * best.size() + steps];
    uint64_t extra =
        choices[item][indices[item]].bytes - findSmallest(choices[item]);
    steps -= (extra + step - 1) / step;
  }
  return indices;
}

std::optional<std::vector<size_t>>
BudgetAllocation::allocateWithin(uint64_t bytes) const {
  if (bytes < smallest)
    return std::nullopt;
  return backtrack(
      std::min<uint64_t>((bytes - smallest) / step, best.size() - 1));
}

std::optional<std::vector<size_t>>
BudgetAllocation::allocateForLoss(double loss) const {
  // Losses fall with the budget.
  auto found = std::partition_point(best.begin(), best.end(),
                                    [&](double value) { return value > loss; });
  if (found == best.end())
    return std::nullopt;
  return backtrack(found - best.begin());
}

AllocationChoice
BudgetAllocation::evaluate(const std::vector<size_t> &indices) const {
  AllocationChoice total;
  for (size_t item = 0; item < choices.size(); ++item) {
    total.bytes += choices[item][indices[item]].bytes;
    total.loss += choices[item][indices[item]].loss;
  }
  return total;
}

std::vector<AllocationChoice> BudgetAllocation::getCurve(size_t points) const {
  std::vector<AllocationChoice> curve;
  for (size_t i = 0; i < points; ++i) {
    size_t steps = i * (best.size() - 1) / std::max<size_t>(points - 1, 1);
    AllocationChoice point = evaluate(backtrack(steps));
    if (curve.empty() || point.bytes > curve.back().bytes)
      curve.push_back(point);
  }
  return curve;
}

//===- BudgetAllocationTest.cpp - The best choices within a budget --------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Numerics/BudgetAllocation.h"

#include "gtest/gtest.h"

#include <cmath>
#include <limits>
#include <random>

using namespace nibble;

namespace {

using Items = std::vector<std::vector<AllocationChoice>>;

/// Calls `visit` with the bytes and loss of every combination.
template <typename Visit>
void forEachCombination(const Items &items, Visit visit, size_t item = 0,
                        AllocationChoice sum = {}) {
  if (item == items.size())
    return visit(sum);
  for (const AllocationChoice &choice : items[item])
    forEachCombination(items, visit, item + 1,
                       {sum.bytes + choice.bytes, sum.loss + choice.loss});
}

Items makeItems(std::mt19937 &random, size_t count, uint64_t unit) {
  Items items(count);
  std::uniform_int_distribution<uint64_t> bytes(1, 40);
  std::uniform_real_distribution<double> loss(0, 1);
  for (auto &item : items)
    for (int i = 0; i < 4; ++i)
      item.push_back({bytes(random) * unit, loss(random)});
  return items;
}

TEST(BudgetAllocation, IsTheBestOfAllCombinations) {
  std::mt19937 random(1);
  for (int round = 0; round < 30; ++round) {
    // Few bytes: every step counts exactly.
    Items items = makeItems(random, 6, 1 + round * 100);
    BudgetAllocation allocation(items);
    for (uint64_t budget = 0; budget < 260; budget += 13) {
      uint64_t bytes = budget * (1 + round * 100);
      double best = std::numeric_limits<double>::infinity();
      forEachCombination(items, [&](AllocationChoice sum) {
        if (sum.bytes <= bytes)
          best = std::min(best, sum.loss);
      });
      auto chosen = allocation.allocateWithin(bytes);
      ASSERT_EQ(chosen.has_value(), std::isfinite(best));
      if (!chosen)
        continue;
      AllocationChoice sum = allocation.evaluate(*chosen);
      EXPECT_LE(sum.bytes, bytes);
      EXPECT_NEAR(sum.loss, best, 1e-12);
    }
  }
}

TEST(BudgetAllocation, TakesTheFewestBytesForALoss) {
  std::mt19937 random(2);
  Items items = makeItems(random, 6, 1);
  BudgetAllocation allocation(items);
  for (int tenths = 0; tenths < 50; ++tenths) {
    double loss = tenths * 0.1;
    uint64_t fewest = std::numeric_limits<uint64_t>::max();
    forEachCombination(items, [&](AllocationChoice sum) {
      if (sum.loss <= loss)
        fewest = std::min(fewest, sum.bytes);
    });
    auto chosen = allocation.allocateForLoss(loss);
    bool isPossible = fewest != std::numeric_limits<uint64_t>::max();
    ASSERT_EQ(chosen.has_value(), isPossible);
    if (chosen) {
      EXPECT_LE(allocation.evaluate(*chosen).loss, loss);
      EXPECT_EQ(allocation.evaluate(*chosen).bytes, fewest);
    }
  }
}

TEST(BudgetAllocation, LosesAtMostAStepAnItemWhereBytesAreMany) {
  std::mt19937 random(3);
  Items items = makeItems(random, 6, 1000003);
  // No common divisor, and a range far beyond the steps that are counted.
  for (auto &item : items)
    for (AllocationChoice &choice : item)
      choice.bytes += random() % 1000;
  BudgetAllocation allocation(items);
  uint64_t range = 0;
  for (auto &item : items)
    for (AllocationChoice &choice : item)
      range += choice.bytes;
  uint64_t slack = items.size() * (range / 65536 + 1);
  for (uint64_t bytes = 20000000; bytes < 250000000; bytes += 7000000) {
    double near = std::numeric_limits<double>::infinity();
    forEachCombination(items, [&](AllocationChoice sum) {
      if (sum.bytes + slack <= bytes)
        near = std::min(near, sum.loss);
    });
    auto chosen = allocation.allocateWithin(bytes);
    if (!std::isfinite(near))
      continue;
    ASSERT_TRUE(chosen.has_value());
    EXPECT_LE(allocation.evaluate(*chosen).bytes, bytes);
    EXPECT_LE(allocation.evaluate(*chosen).loss, near + 1e-12);
  }
}

TEST(BudgetAllocation, CurveFalls) {
  std::mt19937 random(4);
  BudgetAllocation allocation(makeItems(random, 20, 1000));
  std::vector<AllocationChoice> curve = allocation.getCurve(50);
  ASSERT_GT(curve.size(), 10u);
  for (size_t i = 1; i < curve.size(); ++i) {
    EXPECT_GT(curve[i].bytes, curve[i - 1].bytes);
    EXPECT_LE(curve[i].loss, curve[i - 1].loss);
  }
}

TEST(BudgetAllocation, NothingToChoose) {
  BudgetAllocation allocation({});
  EXPECT_TRUE(allocation.allocateWithin(0)->empty());
}

} // namespace

//===- Charts.cpp - Charts as SVG -----------------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Charts.h"

#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

#include <algorithm>
#include <cmath>

using namespace nibble;
using llvm::formatv;

std::string nibble::escapeHTML(llvm::StringRef text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
    case '&':
      escaped += "&amp;";
      break;
    case '<':
      escaped += "&lt;";
      break;
    case '>':
      escaped += "&gt;";
      break;
    case '"':
      escaped += "&quot;";
      break;
    default:
      escaped += c;
    }
  }
  return escaped;
}

namespace {

/// Sizes of a chart in pixels.
constexpr double kWidth = 900, kHeight = 260, kLeft = 70, kBottom = 30,
                 kTop = 10, kRight = 20;

/// A scale over whole powers of ten, from the bottom to the top.
class LogAxis {
public:
  LogAxis(double least, double largest)
      : low(static_cast<int>(std::floor(std::log10(least)))),
        high(std::max(static_cast<int>(std::ceil(std::log10(largest))),
                      low + 1)) {}
  double place(double value) const {
    double share = (std::log10(value) - low) / (high - low);
    return kHeight - kBottom -
           std::clamp(share, 0.0, 1.0) * (kHeight - kBottom - kTop);
  }
  void draw(llvm::raw_ostream &os) const {
    for (int power = low; power <= high; ++power) {
      double y = place(std::pow(10.0, power));
      os << formatv("<line class=grid x1={0} x2={1} y1={2:f1} y2={2:f1} "
                    "/><text x={3} y={4:f1} text-anchor=end>1e{5}</text>\n",
                    kLeft, kWidth - kRight, y, kLeft - 6, y + 4, power);
    }
  }

private:
  int low, high;
};

} // namespace

static void begin(llvm::raw_ostream &os) {
  os << formatv("<svg viewBox='0 0 {0} {1}' role=img>\n", kWidth, kHeight);
}

void nibble::drawErrors(const QuantizationPlan &plan, llvm::raw_ostream &os) {
  double least = INFINITY, largest = 0;
  for (const PlannedWeight &weight : plan.weights)
    if (double error = getError(weight); error > 0) {
      least = std::min(least, error);
      largest = std::max(largest, error);
    }
  if (largest == 0)
    return;
  LogAxis axis(least, largest);
  begin(os);
  axis.draw(os);
  double step = (kWidth - kLeft - kRight) / double(plan.weights.size());
  for (auto [i, weight] : llvm::enumerate(plan.weights)) {
    double error = getError(weight);
    if (!(error > 0))
      continue;
    double y = axis.place(error);
    os << formatv("<rect class=bar x={0:f1} y={1:f1} width={2:f1} "
                  "height={3:f1}><title>{4}: {5:P2}</title></rect>\n",
                  kLeft + double(i) * step, y, std::max(step * 0.8, 0.5),
                  kHeight - kBottom - y, escapeHTML(weight.name), error);
  }
  os << formatv("<text x={0} y={1}>weights in the order of the graph</text>"
                "</svg>\n",
                kLeft, kHeight - 8);
}

void nibble::drawBudget(const BudgetReport &budget, llvm::raw_ostream &os) {
  double least = INFINITY, largest = 0, fewest = INFINITY, most = 0;
  auto include = [&](const BudgetPoint &point) {
    if (!(point.loss > 0))
      return;
    least = std::min(least, point.loss);
    largest = std::max(largest, point.loss);
    fewest = std::min(fewest, point.bitsPerWeight);
    most = std::max(most, point.bitsPerWeight);
  };
  llvm::for_each(budget.curve, include);
  llvm::for_each(budget.uniform, include);
  if (largest == 0)
    return;
  LogAxis axis(least, largest);
  int low = static_cast<int>(std::floor(fewest));
  int high = std::max(static_cast<int>(std::ceil(most)), low + 1);
  auto placeBits = [&](double bits) {
    return kLeft + (bits - low) / (high - low) * (kWidth - kLeft - kRight);
  };
  begin(os);
  axis.draw(os);
  for (int bits = low; bits <= high; ++bits)
    os << formatv("<line class=grid x1={0:f1} x2={0:f1} y1={1} y2={2} /><text "
                  "x={0:f1} y={3} text-anchor=middle>{4} bits</text>\n",
                  placeBits(bits), kTop, kHeight - kBottom, kHeight - 10, bits);
  os << "<polyline class=curve points='";
  for (const BudgetPoint &point : budget.curve)
    if (point.loss > 0)
      os << formatv("{0:f1},{1:f1} ", placeBits(point.bitsPerWeight),
                    axis.place(point.loss));
  os << "' />\n";
  for (const BudgetPoint &point : budget.uniform)
    os << formatv("<circle class=dot r=4 cx={0:f1} cy={1:f1} /><text x={2:f1} "
                  "y={3:f1}>{4}</text>\n",
                  placeBits(point.bitsPerWeight), axis.place(point.loss),
                  placeBits(point.bitsPerWeight) + 7,
                  axis.place(point.loss) - 5, escapeHTML(point.label));
  os << formatv("<circle class=ring r=8 cx={0:f1} cy={1:f1} /></svg>\n",
                placeBits(budget.chosen.bitsPerWeight),
                axis.place(budget.chosen.loss));
}

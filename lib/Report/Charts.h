//===- Charts.h - Charts as SVG ---------------------------------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_REPORT_CHARTS_H
#define NIBBLE_LIB_REPORT_CHARTS_H

#include "nibble/Report/QuantizationReport.h"

namespace nibble {

/// `text` with the characters that HTML gives a meaning escaped.
std::string escapeHTML(llvm::StringRef text);

/// Bars from left to right on a logarithmic scale, in the order of the plan:
/// the error of what each weight computes. Pointing at a bar shows its name.
void drawErrors(const QuantizationPlan &plan, llvm::raw_ostream &os);

/// Bits a weight against predicted loss: the best mixtures as a line, uniform
/// schemes as dots, what was chosen as a ring.
void drawBudget(const BudgetReport &budget, llvm::raw_ostream &os);

} // namespace nibble

#endif // NIBBLE_LIB_REPORT_CHARTS_H

//===- Outputs.h - What the outputs of a model stand for --------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_EVALUATION_OUTPUTS_H
#define NIBBLE_LIB_EVALUATION_OUTPUTS_H

#include "nibble/Numerics/OutputQuality.h"
#include "nibble/Target/JIT.h"

#include "mlir/IR/BuiltinOps.h"

#include <optional>
#include <string>

namespace nibble {

/// An output of floats.
struct OutputMeaning {
  std::string name;
  /// Among all outputs.
  size_t index = 0;
  OutputKind kind = OutputKind::Numbers;
  /// Of logits: the integer input that may hold the tokens at their positions.
  std::optional<size_t> tokens;
};

/// Reads off the graph what the outputs of `module` stand for (see evaluate).
std::vector<OutputMeaning> findOutputMeanings(mlir::ModuleOp module);

/// Some rows of an output and the tokens that follow their positions.
struct OutputRows {
  size_t width = 0;
  std::vector<float> values;
  /// One a row; negative: unknown.
  std::vector<int64_t> targets;
};

/// Up to `limit` rows, evenly spaced. `inputs` are those of the run.
OutputRows takeRows(const OutputMeaning &meaning, const HostTensor &output,
                    llvm::ArrayRef<HostTensor> inputs, size_t limit);

} // namespace nibble

#endif // NIBBLE_LIB_EVALUATION_OUTPUTS_H

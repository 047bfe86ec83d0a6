//===- LayerErrors.h - What quantization does to each product ---*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_EVALUATION_LAYERERRORS_H
#define NIBBLE_LIB_EVALUATION_LAYERERRORS_H

#include "nibble/Target/JIT.h"

#include <map>

namespace nibble {

/// Rows of what probes saw, by probe.
using ProbeRows = std::map<std::string, std::vector<float>>;

/// Keeps up to `limit` rows, evenly spaced, of what each probe sees in one run.
class RowObserver final : public RunObserver {
public:
  RowObserver(llvm::ArrayRef<std::string> probes, size_t limit)
      : probes(probes), limit(limit) {}
  void observe(size_t probe, const ObservedTensor &tensor) override;
  ProbeRows rows;

private:
  llvm::ArrayRef<std::string> probes;
  size_t limit;
};

/// Evaluation::layerErrors from rows of the float model. A weight that no probe
/// saw, or that cannot be read, has none.
std::map<std::string, double> measureLayerErrors(mlir::ModuleOp original,
                                                 mlir::ModuleOp quantized,
                                                 const ProbeRows &rows,
                                                 unsigned threads);

} // namespace nibble

#endif // NIBBLE_LIB_EVALUATION_LAYERERRORS_H

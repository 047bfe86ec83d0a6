//===- MadeUpData.h - Samples for those who have none -----------*- C++ -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_EVALUATION_MADEUPDATA_H
#define NIBBLE_EVALUATION_MADEUPDATA_H

#include "nibble/Calibration/CalibrationData.h"

namespace nibble {

/// Positions of a made-up sample along a dimension that the model leaves open.
inline constexpr int64_t kMadeUpLength = 64;

/// `samples` samples of random inputs: floats are normal with mean 0 and
/// variance 1; integers that choose rows of a constant table are uniform over
/// its rows; an `attention_mask` is 1 and `position_ids` count, as exporters of
/// language models name them; other integers are 0 or 1. Of the dimensions that
/// the model leaves open the first is 1 and others are kMadeUpLength. The same
/// on every machine. Errors are reported to the context.
mlir::FailureOr<CalibrationData> makeRandomData(mlir::ModuleOp module,
                                                const ModelInterface &model,
                                                size_t samples);

/// `samples` texts that a causal language model draws from its own logits,
/// after LLM-QAT (https://arxiv.org/abs/2305.17888, section 3.1): the first
/// token is uniform over the vocabulary, the next three are the likeliest ones,
/// each later one is drawn. The model runs in Nibble's own execution in f32.
/// Refused with an error to the context where no output is logits of the
/// positions of an input of tokens, where another input is not an
/// `attention_mask` or `position_ids`, and where logits depend on later tokens.
/// `threads`: 0 for one a core, never changes the result.
mlir::FailureOr<CalibrationData> sampleFromModel(mlir::ModuleOp module,
                                                 const ModelInterface &model,
                                                 size_t samples,
                                                 unsigned threads);

} // namespace nibble

#endif // NIBBLE_EVALUATION_MADEUPDATA_H

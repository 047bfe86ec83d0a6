//===- Internal.h - The runtime of a compiled model ---------------*- C -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_RUNTIME_INTERNAL_H
#define NIBBLE_LIB_RUNTIME_INTERNAL_H

#include "nibble/Runtime/Model.h"
#include "nibble/Runtime/Run.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The features of this machine, as bits of CpuFeatures.inl. */
uint64_t nibble_host_features(void);

/* A model that is ready to run. Nothing but its pool changes after it was made,
 * so any number of threads may run it. */
typedef struct nibble_model {
  const nibble_model_info *info;
  const nibble_row *row;
  /* Maps a file, where it is not null. */
  void *mapping;
  size_t mapping_size;
  /* One after the other, the descriptors of the weights. */
  int64_t *descriptors;
  struct nibble_pool *pool;
  /* Null for a model without kernels. */
  nibble_device *device;
} nibble_model;

nibble_status nibble_model_create(const nibble_model_info *info,
                                  const char *weights_path,
                                  nibble_model **result);
void nibble_model_destroy(nibble_model *model);
const char *nibble_model_target(const nibble_model *model);
nibble_status nibble_model_output_shapes(const nibble_model_info *info,
                                         const nibble_tensor *inputs,
                                         size_t num_inputs,
                                         nibble_tensor *outputs,
                                         size_t num_outputs);
nibble_status nibble_model_run(const nibble_model *model,
                               const nibble_tensor *inputs, size_t num_inputs,
                               nibble_tensor *outputs, size_t num_outputs,
                               const volatile int *stop);
void nibble_model_release(nibble_tensor *outputs, size_t num_outputs);
const nibble_value *nibble_model_inputs(const nibble_model_info *info,
                                        size_t *count);
const nibble_value *nibble_model_outputs(const nibble_model_info *info,
                                         size_t *count);
const char *nibble_model_last_error(void);

#ifdef __cplusplus
}
#endif

#endif /* NIBBLE_LIB_RUNTIME_INTERNAL_H */

//===- Model.h - What a compiled model is to the runtime ----------*- C -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// The compiler emits a `nibble_model_info` for each model, and a function of
// the C interface for each `nibble_model_…` here, which passes it on.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_RUNTIME_MODEL_H
#define NIBBLE_RUNTIME_MODEL_H

#include "nibble/Runtime/Device.h"
#include "nibble/Runtime/Types.h"

// NOLINTBEGIN(readability-identifier-naming): the names of a C interface.

/* A constant that the code takes as an argument, after the inputs. */
typedef struct nibble_weight {
  /* Bytes from the start of the weights; a multiple of 64. */
  int64_t offset;
  int64_t ndim;
  const int64_t *shape;
} nibble_weight;

/* The code for one instruction set. */
typedef struct nibble_row {
  const char *name;
  /* Bits of CpuFeatures.inl. */
  uint64_t features;
  /* Takes the addresses of the descriptors of the results (all in one struct,
   * left out where there are none), inputs and weights. */
  void (*entry)(void **arguments);
  const nibble_weight *weights;
  int64_t num_weights;
} nibble_row;

typedef struct nibble_model_info {
  const char *name;
  const nibble_value *inputs, *outputs;
  const nibble_row *rows;
  int64_t num_inputs, num_outputs, num_rows;
  /* The weights of all rows: here, or null and in a file of that name beside
   * the library. */
  const char *weights, *weights_file;
  uint64_t weights_size, weights_hash;
  /* The kernels that the code launches, and how; null for a model without. */
  const nibble_device_code *device_code;
  const nibble_device_interface *device;
} nibble_model_info;

/* The start of a file of weights, which follow after it. */
typedef struct nibble_weights_header {
  char magic[8];
  uint64_t size, hash;
  char padding[40];
} nibble_weights_header;

#define NIBBLE_WEIGHTS_MAGIC "NIBBLEW1"

// NOLINTEND(readability-identifier-naming)

#endif /* NIBBLE_RUNTIME_MODEL_H */

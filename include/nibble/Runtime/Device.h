//===- Device.h - The GPU of a compiled model ---------------------*- C -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What code of the host calls that launches kernels. Memory of the device is
// seen by the host too; launches run one after the other, and the host waits
// for them before it touches what they do.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_RUNTIME_DEVICE_H
#define NIBBLE_RUNTIME_DEVICE_H

#include "nibble/Runtime/Types.h"
#include "nibble/Runtime/nibble_gpu.h"

// NOLINTBEGIN(readability-identifier-naming): the names of a C interface.

#ifdef __cplusplus
extern "C" {
#endif

/* The kernels of a model. */
typedef struct nibble_device_code {
  /* All of them. */
  const char *ptx;
  /* The names of those that are launched by their numbers. */
  const char *const *kernels;
  int64_t num_kernels;
  /* Products of weights, by format; the last entry has none and says which chip
   * the code is for. */
  const nibble_gpu_kernels *products;
  int64_t num_products;
  /* The most bytes that buffers take at a time; 0 where that is not known. */
  uint64_t buffer_bytes;
} nibble_device_code;

typedef struct nibble_device nibble_device;

/* How the runtime of models uses a device. */
typedef struct nibble_device_interface {
  /* Opens the first GPU and copies the weights to it. After a failure *message
   * says what is wrong. */
  nibble_status (*open)(const nibble_device_code *code, const char *weights,
                        uint64_t weights_size, nibble_device **device,
                        const char **device_weights, const char **message);
  void (*close)(nibble_device *device);
  /* Make the device that of this thread for a run, and free what it left. */
  nibble_status (*begin)(nibble_device *device, const char **message);
  void (*end)(nibble_device *device);
} nibble_device_interface;

/* Of NVIDIA GPUs. */
extern const nibble_device_interface nibble_cuda;

/* How a product is launched. */
typedef struct nibble_product_plan {
  /* Its place in the format's kernels. */
  int32_t kernel;
  /* The grid: blocks along N and along M, and parts of K. */
  int32_t columns, rows, splits;
  /* An argument of the kernel. */
  int32_t chunks;
  /* Memory for the sums of the parts and for counters of 0. */
  uint64_t partial_bytes, counter_bytes;
} nibble_product_plan;

nibble_product_plan nibble_plan_product(const nibble_gpu_kernels *format,
                                        int32_t multiprocessors, int32_t K,
                                        int32_t N, int32_t M);

//===--- Called by compiled code ------------------------------------------===//

/* Launches a kernel with `count` arguments, a word for each; room for as many
 * pointers is behind them. */
void nibble_device_launch(int64_t kernel, int64_t blocks, int64_t threads,
                          uint64_t *words, int64_t count);
/* Launches y [M, N] = x [M, K] · weight, in f16; strides are elements from row
 * to row, pointers those of the device. */
void nibble_device_multiply(int64_t format, int64_t M, int64_t N, int64_t K,
                            int64_t x, int64_t x_stride, int64_t weight,
                            int64_t y, int64_t y_stride);
/* Waits for what was launched. */
void nibble_device_synchronize(void);
/* Fills MLIR's descriptor of a memref<?xi8> with new memory. */
void _mlir_ciface_nibble_device_allocate(int64_t *descriptor, int64_t bytes);
/* Frees memory of the device or of the host. */
void nibble_device_free(void *buffer);

#ifdef __cplusplus
}
#endif

// NOLINTEND(readability-identifier-naming)

#endif /* NIBBLE_RUNTIME_DEVICE_H */

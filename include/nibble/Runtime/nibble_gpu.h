//===- nibble_gpu.h - Products of packed weights on NVIDIA GPUs ---*- C -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// Launches the kernels that `nibble kernels --emit c` writes beside this file.
// The CUDA driver is loaded when a GPU is opened: a program needs no toolkit to
// be built, and no GPU to start.
//
//   nibble_gpu *gpu;
//   nibble_gpu_weight *weight;
//   if (nibble_gpu_open(&nibble_kernels, 0, &gpu) ||
//       nibble_gpu_load_weight(gpu, K, N, 1, codes, scales, NULL, &weight) ||
//       nibble_gpu_multiply_host(weight, 1, x, y))
//     fprintf(stderr, "error: %s\n", nibble_gpu_message());
//
// A GPU and its weights are for one thread at a time.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_GPU_H
#define NIBBLE_GPU_H

#include <stddef.h>
#include <stdint.h>

/* NOLINTBEGIN(readability-identifier-naming): the names of a C interface. */

#ifdef __cplusplus
extern "C" {
#endif

typedef enum nibble_gpu_status {
  NIBBLE_GPU_OK = 0,
  NIBBLE_GPU_INVALID_ARGUMENT = 1,
  /* Of the GPU or of this machine. */
  NIBBLE_GPU_OUT_OF_MEMORY = 2,
  /* libcuda.so.1 is not there, or too old. */
  NIBBLE_GPU_NO_DRIVER = 3,
  NIBBLE_GPU_NO_DEVICE = 4,
  /* The kernels are for another chip. */
  NIBBLE_GPU_UNSUPPORTED_CHIP = 5,
  NIBBLE_GPU_LAUNCH_FAILED = 6,
  /* Anything else that the driver reports. */
  NIBBLE_GPU_DRIVER_ERROR = 7
} nibble_gpu_status;

/* A kernel, as kernels.json has it. */
typedef struct nibble_gpu_kernel {
  const char *name, *ptx;
  /* Suits at most so many rows of X. */
  int32_t max_rows;
  int32_t outputs, rows, warps_along_k, threads, shared_bytes;
} nibble_gpu_kernel;

/* The kernels of one format of weights. */
typedef struct nibble_gpu_kernels {
  const char *chip;
  /* The compute capability, and whether later ones do not do. */
  int32_t major, minor, is_exact;
  /* Of a code; inputs of a group, 0 for all. */
  int32_t bits, group;
  int32_t has_zeros, has_bias, overlaps;
  int32_t count;
  const nibble_gpu_kernel *kernels;
} nibble_gpu_kernels;

typedef struct nibble_gpu nibble_gpu;
typedef struct nibble_gpu_weight nibble_gpu_weight;

/* The last failure of this thread: what is wrong, and what to do. */
const char *nibble_gpu_message(void);

/* Opens the GPU of that number, from 0 on. *gpu is null on a failure. */
nibble_gpu_status nibble_gpu_open(const nibble_gpu_kernels *kernels,
                                  int32_t number, nibble_gpu **gpu);
/* Also frees a null pointer. Its weights are to be freed before. */
void nibble_gpu_close(nibble_gpu *gpu);

/* The bytes of the packed codes and scales of a weight [K, N]. */
size_t nibble_gpu_code_bytes(const nibble_gpu_kernels *kernels, int32_t K,
                             int32_t N);
size_t nibble_gpu_scale_bytes(const nibble_gpu_kernels *kernels, int32_t K,
                              int32_t N);
/* The bytes of the GPU that a weight takes, for products of up to max_rows
 * rows: itself, and sums of the parts that several blocks share. */
size_t nibble_gpu_weight_bytes(const nibble_gpu *gpu, int32_t K, int32_t N,
                               int32_t max_rows);

/* Copies a weight, packed as FragmentPacking.h says, to the GPU. `bias` has N
 * f16 numbers, and is null where kernels add none. */
nibble_gpu_status nibble_gpu_load_weight(nibble_gpu *gpu, int32_t K, int32_t N,
                                         int32_t max_rows, const void *codes,
                                         const void *scales, const void *bias,
                                         nibble_gpu_weight **weight);
/* Also frees a null pointer. */
void nibble_gpu_free_weight(nibble_gpu_weight *weight);

/* Starts Y [M, N] = X [M, K] · W (+ bias) on the GPU's memory, in a CUstream
 * (null: the default one). Numbers are f16; strides are elements from row to
 * row and multiples of 8; x and y are aligned to 16 bytes. What lies between N
 * and y's stride may be overwritten. One product of a weight at a time. */
nibble_gpu_status nibble_gpu_multiply(const nibble_gpu_weight *weight,
                                      int32_t M, uint64_t x, int32_t x_stride,
                                      uint64_t y, int32_t y_stride,
                                      void *stream);
/* The same from this machine's memory and back, rows without gaps, and waits
 * for the result. */
nibble_gpu_status nibble_gpu_multiply_host(const nibble_gpu_weight *weight,
                                           int32_t M, const uint16_t *x,
                                           uint16_t *y);

#ifdef __cplusplus
}
#endif

/* NOLINTEND(readability-identifier-naming) */

#endif /* NIBBLE_GPU_H */

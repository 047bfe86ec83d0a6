//===- nibble_gpu.c - Products of packed weights on NVIDIA GPUs -----------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#ifdef NIBBLE_RUNTIME
#include "nibble/Runtime/nibble_gpu.h"
#include "../Libc.h"
#else
#include "nibble_gpu.h"

#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#endif

//===----------------------------------------------------------------------===//
// Failures
//===----------------------------------------------------------------------===//

static _Thread_local char message[512];

const char *nibble_gpu_message(void) { return message; }

static nibble_gpu_status fail(nibble_gpu_status status, const char *format,
                              ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  return status;
}

//===----------------------------------------------------------------------===//
// The driver
//===----------------------------------------------------------------------===//

/* Of CUDA's driver interface (cuda.h), as far as it is used here. */
typedef struct launch_attribute {
  int id;
  char padding[4];
  int value[16];
} launch_attribute;

typedef struct launch_config {
  unsigned grid[3], block[3], shared_bytes;
  void *stream;
  launch_attribute *attributes;
  unsigned num_attributes;
} launch_config;

enum {
  CUDA_OUT_OF_MEMORY = 2,
  CUDA_NO_DEVICE = 100,
  DEVICE_MULTIPROCESSORS = 16,
  DEVICE_MAJOR = 75,
  DEVICE_MINOR = 76,
  DEVICE_SHARED_BYTES = 97,
  FUNCTION_SHARED_BYTES = 8,
  LAUNCH_OVERLAPPING = 6
};

#define DRIVER_FUNCTIONS(FUNCTION)                                             \
  FUNCTION(cuInit, (unsigned))                                                 \
  FUNCTION(cuGetErrorString, (int, const char **))                             \
  FUNCTION(cuDeviceGetCount, (int *))                                          \
  FUNCTION(cuDeviceGet, (int *, int))                                          \
  FUNCTION(cuDeviceGetName, (char *, int, int))                                \
  FUNCTION(cuDeviceGetAttribute, (int *, int, int))                            \
  FUNCTION(cuDevicePrimaryCtxRetain, (void **, int))                           \
  FUNCTION(cuDevicePrimaryCtxRelease_v2, (int))                                \
  FUNCTION(cuCtxPushCurrent_v2, (void *))                                      \
  FUNCTION(cuCtxPopCurrent_v2, (void **))                                      \
  FUNCTION(cuCtxSynchronize, (void))                                           \
  FUNCTION(cuMemGetInfo_v2, (size_t *, size_t *))                              \
  FUNCTION(cuMemAlloc_v2, (uint64_t *, size_t))                                \
  FUNCTION(cuMemAllocManaged, (uint64_t *, size_t, unsigned))                  \
  FUNCTION(cuMemFree_v2, (uint64_t))                                           \
  FUNCTION(cuMemsetD8_v2, (uint64_t, unsigned char, size_t))                   \
  FUNCTION(cuMemcpyHtoD_v2, (uint64_t, const void *, size_t))                  \
  FUNCTION(cuMemcpyDtoH_v2, (void *, uint64_t, size_t))                        \
  FUNCTION(cuModuleLoadData, (void **, const void *))                          \
  FUNCTION(cuModuleUnload, (void *))                                           \
  FUNCTION(cuModuleGetFunction, (void **, void *, const char *))               \
  FUNCTION(cuFuncSetAttribute, (void *, int, int))                             \
  FUNCTION(cuLaunchKernel,                                                     \
           (void *, unsigned, unsigned, unsigned, unsigned, unsigned,          \
            unsigned, unsigned, void *, void **, void **))

typedef struct driver {
  void *library;
#define FIELD(name, arguments) int(*name) arguments;
  DRIVER_FUNCTIONS(FIELD)
#undef FIELD
  /* From CUDA 11.8 on, else null. */
  int (*cuLaunchKernelEx)(const launch_config *, void *, void **, void **);
} driver;

static nibble_gpu_status load_driver(driver *driver) {
  driver->library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!driver->library)
    return fail(NIBBLE_GPU_NO_DRIVER,
                "the CUDA driver cannot be loaded (%s); install NVIDIA's "
                "driver for the GPU",
                dlerror());
#define LOAD(name, arguments)                                                  \
  *(void **)&driver->name = dlsym(driver->library, #name);                     \
  if (!driver->name)                                                           \
    return fail(NIBBLE_GPU_NO_DRIVER,                                          \
                "the CUDA driver has no %s; update it to CUDA 11 or later",    \
                #name);
  DRIVER_FUNCTIONS(LOAD)
#undef LOAD
  *(void **)&driver->cuLaunchKernelEx =
      dlsym(driver->library, "cuLaunchKernelEx");
  return NIBBLE_GPU_OK;
}

/* What the driver says of its error. */
static const char *describe(const driver *driver, int error) {
  const char *text = NULL;
  if (driver->cuGetErrorString(error, &text) || !text)
    return "unknown error";
  return text;
}

static nibble_gpu_status fail_driver(const driver *driver, int error,
                                     const char *what) {
  return fail(error == CUDA_OUT_OF_MEMORY ? NIBBLE_GPU_OUT_OF_MEMORY
                                          : NIBBLE_GPU_DRIVER_ERROR,
              "%s: %s (CUDA error %d)", what, describe(driver, error), error);
}

//===----------------------------------------------------------------------===//
// A GPU
//===----------------------------------------------------------------------===//

/* A kernel that was compiled for the GPU; null before its first use. */
typedef struct loaded_kernel {
  void *module, *function;
} loaded_kernel;

struct nibble_gpu {
  driver driver;
  const nibble_gpu_kernels *kernels;
  loaded_kernel *loaded;
  char name[128];
  int device, multiprocessors;
  void *context;
};

/* Every function leaves the thread's context as it was. */
static nibble_gpu_status enter(nibble_gpu *gpu) {
  int error = gpu->driver.cuCtxPushCurrent_v2(gpu->context);
  return error ? fail_driver(&gpu->driver, error, "cannot use the GPU")
               : NIBBLE_GPU_OK;
}
static void leave(nibble_gpu *gpu) {
  void *context;
  gpu->driver.cuCtxPopCurrent_v2(&context);
}

static nibble_gpu_status find_device(nibble_gpu *gpu, int32_t number) {
  const driver *driver = &gpu->driver;
  int count = 0;
  int error = driver->cuInit(0);
  if (!error)
    error = driver->cuDeviceGetCount(&count);
  if (error == CUDA_NO_DEVICE || (!error && count == 0))
    return fail(NIBBLE_GPU_NO_DEVICE, "the CUDA driver finds no GPU");
  if (error)
    return fail_driver(driver, error, "the CUDA driver cannot start");
  if (number < 0 || number >= count)
    return fail(NIBBLE_GPU_NO_DEVICE,
                "there is no GPU %d; they are numbered from 0 to %d", number,
                count - 1);
  error = driver->cuDeviceGet(&gpu->device, number);
  if (!error)
    error = driver->cuDeviceGetName(gpu->name, sizeof(gpu->name), gpu->device);
  return error ? fail_driver(driver, error, "cannot look at the GPU")
               : NIBBLE_GPU_OK;
}

static nibble_gpu_status check_chip(nibble_gpu *gpu) {
  const driver *driver = &gpu->driver;
  const nibble_gpu_kernels *kernels = gpu->kernels;
  int major = 0, minor = 0, shared_bytes = 0;
  int error = driver->cuDeviceGetAttribute(&major, DEVICE_MAJOR, gpu->device);
  if (!error)
    error = driver->cuDeviceGetAttribute(&minor, DEVICE_MINOR, gpu->device);
  if (!error)
    error = driver->cuDeviceGetAttribute(&shared_bytes, DEVICE_SHARED_BYTES,
                                         gpu->device);
  if (!error)
    error = driver->cuDeviceGetAttribute(&gpu->multiprocessors,
                                         DEVICE_MULTIPROCESSORS, gpu->device);
  if (error)
    return fail_driver(driver, error, "cannot look at the GPU");
  int is_same = major == kernels->major && minor == kernels->minor;
  int is_later = major > kernels->major ||
                 (major == kernels->major && minor > kernels->minor);
  if (!is_same && (kernels->is_exact || !is_later))
    return fail(NIBBLE_GPU_UNSUPPORTED_CHIP,
                "%s is an sm_%d%d; these kernels run on %s%s: choose another "
                "--target for it",
                gpu->name, major, minor, kernels->chip,
                kernels->is_exact ? " alone" : " and later chips");
  for (int32_t i = 0; i < kernels->count; ++i)
    if (kernels->kernels[i].shared_bytes > shared_bytes)
      return fail(NIBBLE_GPU_UNSUPPORTED_CHIP,
                  "%s takes %d bytes of shared memory; a block on %s has %d: "
                  "choose another --target for it",
                  kernels->kernels[i].name, kernels->kernels[i].shared_bytes,
                  gpu->name, shared_bytes);
  return NIBBLE_GPU_OK;
}

static nibble_gpu_status open_gpu(nibble_gpu *gpu, int32_t number) {
  nibble_gpu_status status = load_driver(&gpu->driver);
  if (!status)
    status = find_device(gpu, number);
  if (!status)
    status = check_chip(gpu);
  if (status)
    return status;
  int error = gpu->driver.cuDevicePrimaryCtxRetain(&gpu->context, gpu->device);
  return error ? fail_driver(&gpu->driver, error, "cannot use the GPU")
               : NIBBLE_GPU_OK;
}

nibble_gpu_status nibble_gpu_open(const nibble_gpu_kernels *kernels,
                                  int32_t number, nibble_gpu **result) {
  *result = NULL;
  nibble_gpu *gpu = calloc(1, sizeof(*gpu));
  if (gpu)
    gpu->loaded = calloc((size_t)kernels->count, sizeof(*gpu->loaded));
  if (!gpu || !gpu->loaded) {
    free(gpu);
    return fail(NIBBLE_GPU_OUT_OF_MEMORY, "this machine is out of memory");
  }
  gpu->kernels = kernels;
  nibble_gpu_status status = open_gpu(gpu, number);
  if (status)
    nibble_gpu_close(gpu);
  else
    *result = gpu;
  return status;
}

void nibble_gpu_close(nibble_gpu *gpu) {
  if (!gpu)
    return;
  if (gpu->context && !enter(gpu)) {
    for (int32_t i = 0; i < gpu->kernels->count; ++i)
      if (gpu->loaded[i].module)
        gpu->driver.cuModuleUnload(gpu->loaded[i].module);
    leave(gpu);
  }
  if (gpu->context)
    gpu->driver.cuDevicePrimaryCtxRelease_v2(gpu->device);
  if (gpu->driver.library)
    dlclose(gpu->driver.library);
  free(gpu->loaded);
  free(gpu);
}

//===----------------------------------------------------------------------===//
// Which kernel
//===----------------------------------------------------------------------===//

enum { TILE = 16, CHUNK = 64 };

static size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
static int32_t divide_up(int32_t value, int32_t divisor) {
  return (value - 1) / divisor + 1;
}

/* Inputs that stay together: 64, or 128 where scales are for as many. */
static int32_t unit_of(const nibble_gpu_kernels *kernels) {
  return kernels->group == 0 || kernels->group > CHUNK ? 2 * CHUNK : CHUNK;
}

size_t nibble_gpu_code_bytes(const nibble_gpu_kernels *kernels, int32_t K,
                             int32_t N) {
  return round_up((size_t)K, (size_t)unit_of(kernels)) *
         round_up((size_t)N, TILE) * (size_t)kernels->bits / 8;
}

size_t nibble_gpu_scale_bytes(const nibble_gpu_kernels *kernels, int32_t K,
                              int32_t N) {
  size_t inputs = round_up((size_t)K, (size_t)unit_of(kernels));
  size_t group = kernels->group ? (size_t)kernels->group : inputs;
  size_t groups = (inputs + group - 1) / group;
  return groups * round_up((size_t)N, TILE) * (kernels->has_zeros ? 4 : 2);
}

/* A launch: a kernel, its blocks along N and M, and parts of K. */
typedef struct plan {
  int32_t kernel, columns, rows, splits, chunks;
} plan;

/* Of the kernels for as few rows as do, the one with the fewest warps along K
 * that still keeps the GPU busy; and K in parts where blocks do not suffice. */
static plan choose(const nibble_gpu_kernels *all, int32_t multiprocessors,
                   int32_t K, int32_t N, int32_t M) {
  enum { BUSY_WARPS = 10, MOST_SPLITS = 16 };
  int32_t limit = INT32_MAX, largest = 0;
  for (int32_t i = 0; i < all->count; ++i) {
    int32_t rows = all->kernels[i].max_rows;
    if (rows >= M && rows < limit)
      limit = rows;
    if (rows > largest)
      largest = rows;
  }
  if (limit > largest)
    limit = largest;
  plan best = {-1, 0, 0, 1, 0};
  int best_is_busy = 0, best_along_k = 0;
  for (int32_t i = 0; i < all->count; ++i) {
    const nibble_gpu_kernel *kernel = &all->kernels[i];
    if (kernel->max_rows != limit)
      continue;
    plan plan = {i, divide_up(N, kernel->outputs), divide_up(M, kernel->rows),
                 1, 0};
    int64_t warps = (int64_t)plan.columns * plan.rows * (kernel->threads / 32);
    int is_busy = warps >= (int64_t)BUSY_WARPS * multiprocessors;
    int has_fewer = kernel->warps_along_k <= best_along_k;
    if (best.kernel < 0 || (is_busy && (!best_is_busy || has_fewer)) ||
        (!is_busy && !best_is_busy && !has_fewer)) {
      best = plan;
      best_is_busy = is_busy;
      best_along_k = kernel->warps_along_k;
    }
  }
  int32_t unit = unit_of(all) / CHUNK;
  int32_t units = divide_up(K, unit * CHUNK);
  int64_t blocks = (int64_t)best.columns * best.rows;
  while (best.splits < MOST_SPLITS &&
         2 * blocks * best.splits <= multiprocessors &&
         2 * best.splits * best_along_k <= units)
    best.splits *= 2;
  best.chunks = unit * divide_up(units, best.splits * best_along_k);
  return best;
}

/* Sums of the parts of K, and a counter for each tile of Y. */
static size_t partial_bytes(plan plan, int32_t N, int32_t M) {
  if (plan.splits == 1)
    return 0;
  return (size_t)plan.splits * (size_t)M * round_up((size_t)N, TILE) *
         sizeof(float);
}
static size_t counter_bytes(plan plan) {
  return (size_t)plan.columns * (size_t)plan.rows * sizeof(int32_t);
}

/* The most that any number of rows takes. */
static void size_scratch(const nibble_gpu *gpu, int32_t K, int32_t N,
                         int32_t max_rows, size_t *partials, size_t *counters) {
  *partials = *counters = 0;
  for (int32_t M = 1; M <= max_rows; ++M) {
    plan plan = choose(gpu->kernels, gpu->multiprocessors, K, N, M);
    size_t bytes = partial_bytes(plan, N, M);
    *partials = bytes > *partials ? bytes : *partials;
    bytes = counter_bytes(plan);
    *counters = bytes > *counters ? bytes : *counters;
  }
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

struct nibble_gpu_weight {
  nibble_gpu *gpu;
  int32_t K, N, max_rows;
  /* Null where there is nothing. */
  uint64_t codes, scales, bias, partials, counters;
};

size_t nibble_gpu_weight_bytes(const nibble_gpu *gpu, int32_t K, int32_t N,
                               int32_t max_rows) {
  size_t partials, counters;
  size_scratch(gpu, K, N, max_rows, &partials, &counters);
  size_t bias = gpu->kernels->has_bias ? round_up((size_t)N, TILE) * 2 : 0;
  return nibble_gpu_code_bytes(gpu->kernels, K, N) +
         nibble_gpu_scale_bytes(gpu->kernels, K, N) + bias + partials +
         counters;
}

/* Memory with a copy of the first `given` of its bytes, and 0 behind them. */
static nibble_gpu_status upload(nibble_gpu *gpu, const void *source,
                                size_t given, size_t bytes, uint64_t *memory) {
  if (bytes == 0)
    return NIBBLE_GPU_OK;
  const driver *driver = &gpu->driver;
  int error = driver->cuMemAlloc_v2(memory, bytes);
  if (!error && given < bytes)
    error = driver->cuMemsetD8_v2(*memory, 0, bytes);
  if (!error && given)
    error = driver->cuMemcpyHtoD_v2(*memory, source, given);
  return error ? fail_driver(driver, error, "cannot copy to the GPU")
               : NIBBLE_GPU_OK;
}

static nibble_gpu_status upload_weight(nibble_gpu_weight *weight,
                                       const void *codes, const void *scales,
                                       const void *bias) {
  nibble_gpu *gpu = weight->gpu;
  int32_t K = weight->K, N = weight->N;
  size_t available = 0, total = 0, partials, counters;
  size_t needed = nibble_gpu_weight_bytes(gpu, K, N, weight->max_rows);
  int error = gpu->driver.cuMemGetInfo_v2(&available, &total);
  if (error)
    return fail_driver(&gpu->driver, error, "cannot look at the GPU's memory");
  if (needed > available)
    return fail(NIBBLE_GPU_OUT_OF_MEMORY,
                "a weight of %d x %d for %d rows takes %zu bytes; of the %zu "
                "of %s, %zu are free",
                K, N, weight->max_rows, needed, total, gpu->name, available);
  size_scratch(gpu, K, N, weight->max_rows, &partials, &counters);
  size_t code_bytes = nibble_gpu_code_bytes(gpu->kernels, K, N);
  size_t scale_bytes = nibble_gpu_scale_bytes(gpu->kernels, K, N);
  nibble_gpu_status status =
      upload(gpu, codes, code_bytes, code_bytes, &weight->codes);
  if (!status)
    status = upload(gpu, scales, scale_bytes, scale_bytes, &weight->scales);
  if (!status && bias)
    status = upload(gpu, bias, (size_t)N * 2, round_up((size_t)N, TILE) * 2,
                    &weight->bias);
  if (!status)
    status = upload(gpu, NULL, 0, partials, &weight->partials);
  if (!status)
    status = upload(gpu, NULL, 0, counters, &weight->counters);
  return status;
}

nibble_gpu_status nibble_gpu_load_weight(nibble_gpu *gpu, int32_t K, int32_t N,
                                         int32_t max_rows, const void *codes,
                                         const void *scales, const void *bias,
                                         nibble_gpu_weight **result) {
  *result = NULL;
  if (K < 1 || N < 1 || max_rows < 1)
    return fail(NIBBLE_GPU_INVALID_ARGUMENT,
                "a weight of %d x %d for %d rows: sizes are 1 or more", K, N,
                max_rows);
  if (!codes || !scales || !bias == !!gpu->kernels->has_bias)
    return fail(NIBBLE_GPU_INVALID_ARGUMENT,
                "a weight has codes and scales, and these kernels take %s bias",
                gpu->kernels->has_bias ? "a" : "no");
  nibble_gpu_weight *weight = calloc(1, sizeof(*weight));
  if (!weight)
    return fail(NIBBLE_GPU_OUT_OF_MEMORY, "this machine is out of memory");
  weight->gpu = gpu;
  weight->K = K;
  weight->N = N;
  weight->max_rows = max_rows;
  nibble_gpu_status status = enter(gpu);
  if (!status) {
    status = upload_weight(weight, codes, scales, bias);
    leave(gpu);
  }
  if (status)
    nibble_gpu_free_weight(weight);
  else
    *result = weight;
  return status;
}

void nibble_gpu_free_weight(nibble_gpu_weight *weight) {
  if (!weight)
    return;
  const uint64_t memory[] = {weight->codes, weight->scales, weight->bias,
                             weight->partials, weight->counters};
  char kept[sizeof(message)];
  memcpy(kept, message, sizeof(kept));
  if (!enter(weight->gpu)) {
    for (size_t i = 0; i < sizeof(memory) / sizeof(*memory); ++i)
      if (memory[i])
        weight->gpu->driver.cuMemFree_v2(memory[i]);
    leave(weight->gpu);
  }
  memcpy(message, kept, sizeof(kept));
  free(weight);
}

//===----------------------------------------------------------------------===//
// Products
//===----------------------------------------------------------------------===//

static nibble_gpu_status load_kernel(nibble_gpu *gpu, int32_t number,
                                     void **function) {
  const nibble_gpu_kernel *kernel = &gpu->kernels->kernels[number];
  loaded_kernel *loaded = &gpu->loaded[number];
  const driver *driver = &gpu->driver;
  int error = 0;
  if (!loaded->module)
    error = driver->cuModuleLoadData(&loaded->module, kernel->ptx);
  if (!error && !loaded->function) {
    error = driver->cuModuleGetFunction(&loaded->function, loaded->module,
                                        kernel->name);
    if (!error)
      error = driver->cuFuncSetAttribute(
          loaded->function, FUNCTION_SHARED_BYTES, kernel->shared_bytes);
  }
  *function = loaded->function;
  return error ? fail(NIBBLE_GPU_LAUNCH_FAILED,
                      "%s cannot be loaded on %s: %s (CUDA error %d)",
                      kernel->name, gpu->name, describe(driver, error), error)
               : NIBBLE_GPU_OK;
}

/* What a kernel of a product takes: pointers, then numbers. */
enum { POINTERS = 7, NUMBERS = 6 };

static nibble_gpu_status launch(nibble_gpu *gpu, plan plan,
                                uint64_t pointers[POINTERS],
                                int32_t numbers[NUMBERS], void *stream) {
  void *arguments[POINTERS + NUMBERS];
  for (size_t i = 0; i < POINTERS; ++i)
    arguments[i] = &pointers[i];
  for (size_t i = 0; i < NUMBERS; ++i)
    arguments[POINTERS + i] = &numbers[i];
  const nibble_gpu_kernel *kernel = &gpu->kernels->kernels[plan.kernel];
  void *function;
  nibble_gpu_status status = load_kernel(gpu, plan.kernel, &function);
  if (status)
    return status;
  unsigned columns = (unsigned)plan.columns, rows = (unsigned)plan.rows;
  unsigned splits = (unsigned)plan.splits, threads = (unsigned)kernel->threads;
  unsigned shared_bytes = (unsigned)kernel->shared_bytes;
  int error;
  if (gpu->kernels->overlaps && gpu->driver.cuLaunchKernelEx) {
    launch_attribute overlapping = {LAUNCH_OVERLAPPING, {0}, {1}};
    launch_config config = {{columns, rows, splits},
                            {threads, 1, 1},
                            shared_bytes,
                            stream,
                            &overlapping,
                            1};
    error = gpu->driver.cuLaunchKernelEx(&config, function, arguments, NULL);
  } else {
    error =
        gpu->driver.cuLaunchKernel(function, columns, rows, splits, threads, 1,
                                   1, shared_bytes, stream, arguments, NULL);
  }
  return error ? fail(NIBBLE_GPU_LAUNCH_FAILED,
                      "%s cannot be launched on %s: %s (CUDA error %d)",
                      kernel->name, gpu->name, describe(&gpu->driver, error),
                      error)
               : NIBBLE_GPU_OK;
}

nibble_gpu_status nibble_gpu_multiply(const nibble_gpu_weight *weight,
                                      int32_t M, uint64_t x, int32_t x_stride,
                                      uint64_t y, int32_t y_stride,
                                      void *stream) {
  if (M < 1 || M > weight->max_rows)
    return fail(NIBBLE_GPU_INVALID_ARGUMENT,
                "%d rows; the weight was loaded for 1 to %d", M,
                weight->max_rows);
  if (x_stride < weight->K || y_stride < weight->N || x_stride % 8 ||
      y_stride % 8 || x % 16 || y % 16)
    return fail(NIBBLE_GPU_INVALID_ARGUMENT,
                "strides are multiples of 8 of at least %d for x and %d for "
                "y, not %d and %d, and both start at a multiple of 16 bytes",
                weight->K, weight->N, x_stride, y_stride);
  plan plan = choose(weight->gpu->kernels, weight->gpu->multiprocessors,
                     weight->K, weight->N, M);
  enum { MOST_BLOCKS = 65535 };
  if (plan.rows > MOST_BLOCKS)
    return fail(NIBBLE_GPU_INVALID_ARGUMENT,
                "%d rows are too many for one product; multiply them in parts",
                M);
  uint64_t pointers[] = {x, weight->codes,    weight->scales,  weight->bias,
                         y, weight->partials, weight->counters};
  int32_t numbers[] = {M,        weight->N, weight->K,
                       x_stride, y_stride,  plan.chunks};
  nibble_gpu_status status = enter(weight->gpu);
  if (status)
    return status;
  status = launch(weight->gpu, plan, pointers, numbers, stream);
  leave(weight->gpu);
  return status;
}

/* Rows of `size` elements to rows of `stride`, or back. */
static void copy_rows(uint16_t *to, size_t to_stride, const uint16_t *from,
                      size_t from_stride, size_t size, int32_t rows) {
  for (int32_t row = 0; row < rows; ++row)
    memcpy(to + (size_t)row * to_stride, from + (size_t)row * from_stride,
           size * sizeof(*to));
}

static nibble_gpu_status multiply_host(const nibble_gpu_weight *weight,
                                       int32_t M, const uint16_t *x,
                                       uint16_t *y, uint16_t *rows,
                                       uint64_t memory[2]) {
  nibble_gpu *gpu = weight->gpu;
  const driver *driver = &gpu->driver;
  size_t K = (size_t)weight->K, N = (size_t)weight->N;
  size_t x_stride = round_up(K, 8), y_stride = round_up(N, 8);
  size_t x_bytes = (size_t)M * x_stride * 2, y_bytes = (size_t)M * y_stride * 2;
  copy_rows(rows, x_stride, x, K, K, M);
  nibble_gpu_status status = upload(gpu, rows, x_bytes, x_bytes, &memory[0]);
  if (!status)
    status = upload(gpu, NULL, 0, y_bytes, &memory[1]);
  if (!status)
    status = nibble_gpu_multiply(weight, M, memory[0], (int32_t)x_stride,
                                 memory[1], (int32_t)y_stride, NULL);
  if (status)
    return status;
  int error = driver->cuMemcpyDtoH_v2(rows, memory[1], y_bytes);
  if (error)
    return fail(NIBBLE_GPU_LAUNCH_FAILED,
                "the product on %s failed: %s (CUDA error %d)", gpu->name,
                describe(driver, error), error);
  copy_rows(y, N, rows, y_stride, N, M);
  return NIBBLE_GPU_OK;
}

nibble_gpu_status nibble_gpu_multiply_host(const nibble_gpu_weight *weight,
                                           int32_t M, const uint16_t *x,
                                           uint16_t *y) {
  if (M < 1)
    return fail(NIBBLE_GPU_INVALID_ARGUMENT, "%d rows; there is 1 or more", M);
  size_t widest = (size_t)(weight->K > weight->N ? weight->K : weight->N);
  uint16_t *rows = calloc((size_t)M * round_up(widest, 8), sizeof(*rows));
  if (!rows)
    return fail(NIBBLE_GPU_OUT_OF_MEMORY, "this machine is out of memory");
  uint64_t memory[2] = {0, 0};
  nibble_gpu_status status = enter(weight->gpu);
  if (!status) {
    status = multiply_host(weight, M, x, y, rows, memory);
    for (size_t i = 0; i < 2; ++i)
      if (memory[i])
        weight->gpu->driver.cuMemFree_v2(memory[i]);
    leave(weight->gpu);
  }
  free(rows);
  return status;
}

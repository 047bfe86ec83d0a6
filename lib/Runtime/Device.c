//===- Device.c - The GPU of a compiled model -----------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#define NIBBLE_RUNTIME
/* One file, so that `nibble kernels` can write it as it is. */
#include "Gpu/nibble_gpu.c"

#include "Internal.h"

/* Memory of the device that a run uses, or that waits to be used again. */
typedef struct device_buffer {
  struct device_buffer *next;
  uint64_t memory;
  size_t size;
  /* Of the thread that uses it. */
  const void *owner;
} device_buffer;

/* Memory that grows as products need it. */
typedef struct scratch {
  uint64_t memory;
  size_t size;
} scratch;

struct nibble_device {
  nibble_gpu gpu;
  const nibble_device_code *code;
  void *module;
  /* Of code->kernels. */
  void **functions;
  /* Of each format: `gpu` with its kernels. */
  nibble_gpu *products;
  uint64_t weights;
  device_buffer *live, *spare;
  scratch partials, counters;
  /* Whether anything was launched that no one has waited for. */
  int is_pending;
  /* Runs of several threads share the buffers. */
  int lock;
};

static _Thread_local nibble_device *current;

static void lock(nibble_device *device) {
  while (__atomic_exchange_n(&device->lock, 1, __ATOMIC_ACQUIRE)) {
  }
}
static void unlock(nibble_device *device) {
  __atomic_store_n(&device->lock, 0, __ATOMIC_RELEASE);
}

//===----------------------------------------------------------------------===//
// Opening
//===----------------------------------------------------------------------===//

static nibble_gpu_status check_memory(nibble_device *device,
                                      uint64_t weights_size) {
  size_t available = 0, total = 0;
  uint64_t needed = weights_size + device->code->buffer_bytes;
  const driver *driver = &device->gpu.driver;
  int error = driver->cuMemGetInfo_v2(&available, &total);
  if (error)
    return fail_driver(driver, error, "cannot look at the GPU's memory");
  if (needed > available)
    return fail(NIBBLE_GPU_OUT_OF_MEMORY,
                "the model takes %llu bytes of weights and %llu of buffers; of "
                "the %zu of %s, %zu are free",
                (unsigned long long)weights_size,
                (unsigned long long)device->code->buffer_bytes, total,
                device->gpu.name, available);
  return NIBBLE_GPU_OK;
}

static int find_functions(nibble_device *device) {
  const nibble_device_code *code = device->code;
  const driver *driver = &device->gpu.driver;
  int error = driver->cuModuleLoadData(&device->module, code->ptx);
  for (int64_t i = 0; i < code->num_kernels && !error; ++i)
    error = driver->cuModuleGetFunction(&device->functions[i], device->module,
                                        code->kernels[i]);
  for (int64_t i = 0; i < code->num_products && !error; ++i)
    for (int32_t k = 0; k < code->products[i].count && !error; ++k) {
      const nibble_gpu_kernel *kernel = &code->products[i].kernels[k];
      loaded_kernel *loaded = &device->products[i].loaded[k];
      loaded->module = device->module;
      error = driver->cuModuleGetFunction(&loaded->function, device->module,
                                          kernel->name);
      if (!error)
        error = driver->cuFuncSetAttribute(
            loaded->function, FUNCTION_SHARED_BYTES, kernel->shared_bytes);
    }
  return error;
}

static nibble_gpu_status load_code(nibble_device *device) {
  const nibble_device_code *code = device->code;
  device->functions = calloc((size_t)code->num_kernels + 1, sizeof(void *));
  device->products =
      calloc((size_t)code->num_products + 1, sizeof(*device->products));
  if (!device->functions || !device->products)
    return fail(NIBBLE_GPU_OUT_OF_MEMORY, "this machine is out of memory");
  for (int64_t i = 0; i < code->num_products; ++i) {
    nibble_gpu *product = &device->products[i];
    *product = device->gpu;
    product->kernels = &code->products[i];
    product->loaded =
        calloc((size_t)code->products[i].count + 1, sizeof(*product->loaded));
    if (!product->loaded)
      return fail(NIBBLE_GPU_OUT_OF_MEMORY, "this machine is out of memory");
    nibble_gpu_status status = check_chip(product);
    if (status)
      return status;
  }
  int error = find_functions(device);
  return error ? fail(NIBBLE_GPU_LAUNCH_FAILED,
                      "the kernels cannot be loaded on %s: %s (CUDA error %d)",
                      device->gpu.name, describe(&device->gpu.driver, error),
                      error)
               : NIBBLE_GPU_OK;
}

static nibble_gpu_status load_weights(nibble_device *device,
                                      const char *weights, uint64_t size) {
  enum { SEEN_BY_ALL = 1 };
  const driver *driver = &device->gpu.driver;
  if (size == 0)
    return NIBBLE_GPU_OK;
  int error = driver->cuMemAllocManaged(&device->weights, size, SEEN_BY_ALL);
  if (!error)
    error = driver->cuMemcpyHtoD_v2(device->weights, weights, size);
  return error ? fail_driver(driver, error, "cannot copy weights to the GPU")
               : NIBBLE_GPU_OK;
}

static nibble_gpu_status open_device(nibble_device *device, const char *weights,
                                     uint64_t size) {
  nibble_gpu_status status = open_gpu(&device->gpu, 0);
  if (!status)
    status = enter(&device->gpu);
  if (status)
    return status;
  status = check_memory(device, size);
  if (!status)
    status = load_code(device);
  if (!status)
    status = load_weights(device, weights, size);
  leave(&device->gpu);
  return status;
}

static void free_buffers(nibble_device *device, device_buffer *buffer) {
  while (buffer) {
    device_buffer *next = buffer->next;
    device->gpu.driver.cuMemFree_v2(buffer->memory);
    free(buffer);
    buffer = next;
  }
}

static void close_device(nibble_device *device) {
  if (!device)
    return;
  nibble_gpu *gpu = &device->gpu;
  if (gpu->context && !enter(gpu)) {
    free_buffers(device, device->live);
    free_buffers(device, device->spare);
    const uint64_t memory[] = {device->weights, device->partials.memory,
                               device->counters.memory};
    for (size_t i = 0; i < sizeof(memory) / sizeof(*memory); ++i)
      if (memory[i])
        gpu->driver.cuMemFree_v2(memory[i]);
    if (device->module)
      gpu->driver.cuModuleUnload(device->module);
    leave(gpu);
  }
  if (gpu->context)
    gpu->driver.cuDevicePrimaryCtxRelease_v2(gpu->device);
  if (gpu->driver.library)
    dlclose(gpu->driver.library);
  for (int64_t i = 0; device->products && i < device->code->num_products; ++i)
    free(device->products[i].loaded);
  free(device->products);
  free(device->functions);
  free(device);
}

static nibble_status to_status(nibble_gpu_status status) {
  if (status == NIBBLE_GPU_OK)
    return NIBBLE_OK;
  return status == NIBBLE_GPU_OUT_OF_MEMORY ? NIBBLE_OUT_OF_MEMORY
                                            : NIBBLE_DEVICE_FAILED;
}

static nibble_status open_for_model(const nibble_device_code *code,
                                    const char *weights, uint64_t weights_size,
                                    nibble_device **result,
                                    const char **device_weights,
                                    const char **text) {
  *text = message;
  nibble_device *device = calloc(1, sizeof(*device));
  if (!device)
    return to_status(
        fail(NIBBLE_GPU_OUT_OF_MEMORY, "this machine is out of memory"));
  device->code = code;
  device->gpu.kernels = &code->products[code->num_products];
  nibble_gpu_status status = open_device(device, weights, weights_size);
  if (status) {
    char kept[sizeof(message)];
    memcpy(kept, message, sizeof(kept));
    close_device(device);
    memcpy(message, kept, sizeof(kept));
    return to_status(status);
  }
  *result = device;
  *device_weights = (const char *)(uintptr_t)device->weights;
  return NIBBLE_OK;
}

//===----------------------------------------------------------------------===//
// Runs
//===----------------------------------------------------------------------===//

static nibble_status begin_run(nibble_device *device, const char **text) {
  *text = message;
  nibble_gpu_status status = enter(&device->gpu);
  if (!status)
    current = device;
  return to_status(status);
}

/* What the run has left, if it failed, waits to be used again. */
static void end_run(nibble_device *device) {
  lock(device);
  device_buffer **link = &device->live;
  while (*link) {
    device_buffer *buffer = *link;
    if (buffer->owner != &current) {
      link = &buffer->next;
      continue;
    }
    *link = buffer->next;
    buffer->next = device->spare;
    device->spare = buffer;
  }
  unlock(device);
  current = NULL;
  leave(&device->gpu);
}

const nibble_device_interface nibble_cuda = {open_for_model, close_device,
                                             begin_run, end_run};

//===----------------------------------------------------------------------===//
// Plans
//===----------------------------------------------------------------------===//

nibble_product_plan nibble_plan_product(const nibble_gpu_kernels *format,
                                        int32_t multiprocessors, int32_t K,
                                        int32_t N, int32_t M) {
  plan plan = choose(format, multiprocessors, K, N, M);
  nibble_product_plan result = {plan.kernel,        plan.columns,
                                plan.rows,          plan.splits,
                                plan.chunks,        partial_bytes(plan, N, M),
                                counter_bytes(plan)};
  return result;
}

//===----------------------------------------------------------------------===//
// Called by compiled code
//===----------------------------------------------------------------------===//

/* Ends the run with what is wrong. */
static void fail_run(nibble_gpu_status status) {
  nibble_runtime_fail(status == NIBBLE_GPU_OUT_OF_MEMORY
                          ? NIBBLE_RUN_OUT_OF_MEMORY
                          : NIBBLE_RUN_DEVICE_FAILED,
                      message);
}

void nibble_device_launch(int64_t kernel, int64_t blocks, int64_t threads,
                          uint64_t *words, int64_t count) {
  nibble_device *device = current;
  if (blocks <= 0)
    return;
  void **arguments = (void **)(words + count);
  for (int64_t i = 0; i < count; ++i)
    arguments[i] = &words[i];
  const driver *driver = &device->gpu.driver;
  enum { INVALID_VALUE = 1 };
  int error = INVALID_VALUE;
  __atomic_store_n(&device->is_pending, 1, __ATOMIC_RELEASE);
  if (blocks <= INT32_MAX)
    error = driver->cuLaunchKernel(device->functions[kernel], (unsigned)blocks,
                                   1, 1, (unsigned)threads, 1, 1, 0, NULL,
                                   arguments, NULL);
  if (error)
    fail_run(fail(NIBBLE_GPU_LAUNCH_FAILED,
                  "%s cannot be launched on %s: %s (CUDA error %d)",
                  device->code->kernels[kernel], device->gpu.name,
                  describe(driver, error), error));
}

/* Makes `scratch` hold `size` bytes, of 0 where it is new. Products run one
 * after the other and leave counters at 0. */
static nibble_gpu_status reserve(nibble_device *device, scratch *scratch,
                                 size_t size) {
  const driver *driver = &device->gpu.driver;
  if (size <= scratch->size)
    return NIBBLE_GPU_OK;
  uint64_t memory = 0;
  int error = driver->cuMemAlloc_v2(&memory, size);
  if (!error)
    error = driver->cuMemsetD8_v2(memory, 0, size);
  if (error)
    return fail_driver(driver, error, "no memory for the sums of a product");
  if (scratch->memory)
    driver->cuMemFree_v2(scratch->memory);
  scratch->memory = memory;
  scratch->size = size;
  return NIBBLE_GPU_OK;
}

static nibble_gpu_status multiply(nibble_device *device, nibble_gpu *product,
                                  int32_t M, int32_t N, int32_t K, uint64_t x,
                                  int32_t x_stride, uint64_t weight, uint64_t y,
                                  int32_t y_stride) {
  plan plan = choose(product->kernels, product->multiprocessors, K, N, M);
  enum { MOST_BLOCKS = 65535 };
  if (plan.rows > MOST_BLOCKS)
    return fail(NIBBLE_GPU_INVALID_ARGUMENT,
                "%d rows are too many for one product", M);
  nibble_gpu_status status = NIBBLE_GPU_OK;
  if (plan.splits > 1) {
    status = reserve(device, &device->partials, partial_bytes(plan, N, M));
    if (!status)
      status = reserve(device, &device->counters, counter_bytes(plan));
  }
  if (status)
    return status;
  uint64_t pointers[] = {x,
                         weight,
                         weight + nibble_gpu_code_bytes(product->kernels, K, N),
                         0,
                         y,
                         device->partials.memory,
                         device->counters.memory};
  int32_t numbers[] = {M, N, K, x_stride, y_stride, plan.chunks};
  return launch(product, plan, pointers, numbers, NULL);
}

void nibble_device_multiply(int64_t format, int64_t M, int64_t N, int64_t K,
                            int64_t x, int64_t x_stride, int64_t weight,
                            int64_t y, int64_t y_stride) {
  nibble_device *device = current;
  if (M <= 0)
    return;
  lock(device);
  device->is_pending = 1;
  nibble_gpu_status status =
      M > INT32_MAX
          ? fail(NIBBLE_GPU_INVALID_ARGUMENT,
                 "%lld rows are too many for one product", (long long)M)
          : multiply(device, &device->products[format], (int32_t)M, (int32_t)N,
                     (int32_t)K, (uint64_t)x, (int32_t)x_stride,
                     (uint64_t)weight, (uint64_t)y, (int32_t)y_stride);
  unlock(device);
  if (status)
    fail_run(status);
}

void nibble_device_synchronize(void) {
  nibble_device *device = current;
  if (!__atomic_exchange_n(&device->is_pending, 0, __ATOMIC_ACQ_REL))
    return;
  const driver *driver = &device->gpu.driver;
  int error = driver->cuCtxSynchronize();
  if (error)
    fail_run(fail(NIBBLE_GPU_LAUNCH_FAILED,
                  "the kernels failed on %s: %s (CUDA error %d)",
                  device->gpu.name, describe(driver, error), error));
}

/* The smallest spare buffer that `size` fills at least half, or null. */
static device_buffer *take_spare(nibble_device *device, size_t size) {
  device_buffer **link = &device->spare, **best = NULL;
  for (; *link; link = &(*link)->next)
    if ((*link)->size >= size && (*link)->size / 2 <= size &&
        (!best || (*link)->size < (*best)->size))
      best = link;
  if (!best)
    return NULL;
  device_buffer *buffer = *best;
  *best = buffer->next;
  return buffer;
}

static device_buffer *create_buffer(nibble_device *device, size_t size) {
  enum { SEEN_BY_ALL = 1, GRAIN = 512 };
  const driver *driver = &device->gpu.driver;
  device_buffer *buffer = calloc(1, sizeof(*buffer));
  if (!buffer)
    return NULL;
  buffer->size = round_up(size ? size : 1, GRAIN);
  int error =
      driver->cuMemAllocManaged(&buffer->memory, buffer->size, SEEN_BY_ALL);
  if (error && device->spare) {
    free_buffers(device, device->spare);
    device->spare = NULL;
    error =
        driver->cuMemAllocManaged(&buffer->memory, buffer->size, SEEN_BY_ALL);
  }
  if (!error)
    return buffer;
  free(buffer);
  return NULL;
}

void _mlir_ciface_nibble_device_allocate(int64_t *descriptor, int64_t bytes) {
  nibble_device *device = current;
  lock(device);
  device_buffer *buffer = take_spare(device, (size_t)bytes);
  if (!buffer)
    buffer = create_buffer(device, (size_t)bytes);
  if (buffer) {
    buffer->owner = &current;
    buffer->next = device->live;
    device->live = buffer;
  }
  unlock(device);
  if (!buffer) {
    fail_run(fail(NIBBLE_GPU_OUT_OF_MEMORY, "%s has no memory for %lld bytes",
                  device->gpu.name, (long long)bytes));
    return;
  }
  descriptor[0] = descriptor[1] = (int64_t)buffer->memory;
  descriptor[2] = 0;
  descriptor[3] = bytes;
  descriptor[4] = 1;
}

/* Later launches may use the memory at once: they wait for those before. */
void nibble_device_free(void *memory) {
  nibble_device *device = current;
  lock(device);
  device_buffer **link = &device->live;
  while (*link && (*link)->memory != (uint64_t)(uintptr_t)memory)
    link = &(*link)->next;
  device_buffer *buffer = *link;
  if (buffer) {
    *link = buffer->next;
    buffer->next = device->spare;
    device->spare = buffer;
  }
  unlock(device);
  if (!buffer)
    _mlir_memref_to_llvm_free(memory);
}

//===- Run.c - One run of a compiled model --------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Runtime/Run.h"

#include "Libc.h"

/* Stands before every buffer, and keeps its alignment. */
struct nibble_allocation {
  struct nibble_allocation *previous, *next;
  /* Null for a buffer that no run owns. */
  struct nibble_run *run;
  size_t size;
  char padding[32];
};

_Static_assert(sizeof(struct nibble_allocation) == 64,
               "a buffer starts at a multiple of 64 bytes");

static _Thread_local struct nibble_run *current;

/* Buffers from this size on are used again. */
enum { LARGE = 64 * 1024 };

/* Copies what fits. */
static void copy_text(char *to, size_t size, const char *from) {
  size_t i = 0;
  for (; i + 1 < size && from[i]; ++i)
    to[i] = from[i];
  to[i] = 0;
}

static void free_all(struct nibble_allocation *allocation) {
  while (allocation) {
    struct nibble_allocation *next = allocation->next;
    free(allocation);
    allocation = next;
  }
}

static void free_spare(struct nibble_run *run) {
  free_all(run->spare);
  run->spare = NULL;
  run->spare_bytes = 0;
}

int nibble_run_call(struct nibble_run *run, void (*function)(void **),
                    void **arguments, const volatile int *stop) {
  run->allocations = NULL;
  run->spare = NULL;
  run->live_bytes = run->peak_bytes = run->spare_bytes = 0;
  run->stop = stop;
  run->outer = current;
  run->code = NIBBLE_RUN_OK;
  run->message[0] = 0;
  current = run;
  if (_setjmp(run->entry) == 0)
    function(arguments);
  current = run->outer;
  free_spare(run);
  if (run->code != NIBBLE_RUN_OK)
    nibble_run_free(run);
  return run->code;
}

void nibble_run_free(struct nibble_run *run) {
  free_spare(run);
  free_all(run->allocations);
  run->allocations = NULL;
}

void nibble_run_take(void *buffer) {
  struct nibble_allocation *allocation = (struct nibble_allocation *)buffer - 1;
  struct nibble_run *run = allocation->run;
  if (!run)
    return;
  if (allocation->previous)
    allocation->previous->next = allocation->next;
  else
    run->allocations = allocation->next;
  if (allocation->next)
    allocation->next->previous = allocation->previous;
  if (allocation->size >= LARGE)
    run->live_bytes -= allocation->size;
  allocation->run = NULL;
}

//===--- Called by compiled code ------------------------------------------===//

void nibble_runtime_fail(int code, const char *message) {
  struct nibble_run *run = current;
  if (!run)
    abort(); /* Outside of any run, or on a thread that began none. */
  run->code = code;
  copy_text(run->message, sizeof(run->message), message);
  longjmp(run->entry, 1);
}

int64_t nibble_runtime_multiply(int64_t a, int64_t b) {
  int64_t product;
  if (a < 0 || b < 0)
    nibble_runtime_fail(NIBBLE_RUN_CHECK_FAILED,
                        "a tensor would have a negative size");
  if (__builtin_mul_overflow(a, b, &product))
    nibble_runtime_fail(NIBBLE_RUN_OUT_OF_MEMORY,
                        "a tensor would have more bytes than can be addressed");
  return product;
}

void nibble_runtime_check_interrupt(void) {
  if (current && current->stop && *current->stop)
    nibble_runtime_fail(NIBBLE_RUN_INTERRUPTED, "the run was interrupted");
}

static void fail_allocation(size_t size) {
  char message[96];
  snprintf(message, sizeof(message), "no memory for %zu bytes", size);
  nibble_runtime_fail(NIBBLE_RUN_OUT_OF_MEMORY, message);
}

void *nibble_run_allocate(size_t size) {
  struct nibble_allocation *allocation;
  void *memory;
  size_t total;
  if (__builtin_add_overflow(size, sizeof(*allocation), &total) ||
      posix_memalign(&memory, sizeof(*allocation), total))
    return NULL;
  allocation = memory;
  allocation->previous = NULL;
  allocation->next = NULL;
  allocation->run = NULL;
  allocation->size = size;
  return allocation + 1;
}

/* A spare buffer that `size` fills at least half; null where there is none. */
static void *take_spare(struct nibble_run *run, size_t size) {
  struct nibble_allocation **link = &run->spare, **best = NULL;
  for (; *link; link = &(*link)->next)
    if ((*link)->size >= size && (*link)->size / 2 <= size &&
        (!best || (*link)->size < (*best)->size))
      best = link;
  if (!best)
    return NULL;
  struct nibble_allocation *allocation = *best;
  *best = allocation->next;
  run->spare_bytes -= allocation->size;
  allocation->previous = allocation->next = NULL;
  return allocation + 1;
}

static void *allocate_for(struct nibble_run *run, size_t size) {
  if (!run || size < LARGE)
    return nibble_run_allocate(size);
  void *buffer = take_spare(run, size);
  if (!buffer) {
    if (run->live_bytes + run->spare_bytes + size > 2 * run->peak_bytes)
      free_spare(run);
    buffer = nibble_run_allocate(size);
  }
  if (!buffer)
    return NULL;
  run->live_bytes += ((struct nibble_allocation *)buffer - 1)->size;
  if (run->live_bytes > run->peak_bytes)
    run->peak_bytes = run->live_bytes;
  return buffer;
}

void *_mlir_memref_to_llvm_aligned_alloc(size_t alignment, size_t size) {
  void *buffer = alignment <= sizeof(struct nibble_allocation)
                     ? allocate_for(current, size)
                     : NULL;
  if (!buffer)
    fail_allocation(size);
  struct nibble_allocation *allocation = (struct nibble_allocation *)buffer - 1;
  if (current) {
    allocation->run = current;
    allocation->next = current->allocations;
    if (allocation->next)
      allocation->next->previous = allocation;
    current->allocations = allocation;
  }
  return buffer;
}

void *_mlir_memref_to_llvm_alloc(size_t size) {
  return _mlir_memref_to_llvm_aligned_alloc(sizeof(struct nibble_allocation),
                                            size);
}

void _mlir_memref_to_llvm_free(void *buffer) {
  if (!buffer)
    return;
  struct nibble_allocation *allocation = (struct nibble_allocation *)buffer - 1;
  struct nibble_run *run = allocation->run;
  nibble_run_take(buffer);
  if (!run || run != current || allocation->size < LARGE) {
    free(allocation);
    return;
  }
  allocation->next = run->spare;
  run->spare = allocation;
  run->spare_bytes += allocation->size;
}

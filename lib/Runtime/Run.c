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
  /* What it has, and what was asked for. */
  size_t size, used;
  /* Of the first buffer in a pool: the most bytes that were in use in the run
   * that left it. */
  size_t peak_bytes;
  char padding[16];
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
}

static void add_spare(struct nibble_run *run,
                      struct nibble_allocation *allocation) {
  allocation->next = run->spare;
  run->spare = allocation;
}

/* The spare buffer that was freed last: where runs are alike, it is the one
 * that will be needed last. */
static void drop_spare(struct nibble_run *run) {
  struct nibble_allocation *last = run->spare;
  run->spare = last->next;
  run->owned_bytes -= last->size;
  free(last);
}

/* All that the pool has, which no other run gets then. */
static void take_pool(struct nibble_run *run) {
  run->spare = NULL;
  run->owned_bytes = run->known_bytes = 0;
  if (!run->pool)
    return;
  run->spare = __atomic_exchange_n(&run->pool->spare, NULL, __ATOMIC_ACQUIRE);
  if (run->spare)
    run->known_bytes = run->spare->peak_bytes;
  for (struct nibble_allocation *it = run->spare; it; it = it->next)
    run->owned_bytes += it->size;
}

/* Leaves what the run needed to the next one, unless the pool has something
 * already. */
static void fill_pool(struct nibble_run *run) {
  while (run->spare && run->owned_bytes > 2 * run->peak_bytes)
    drop_spare(run);
  struct nibble_allocation *none = NULL;
  if (run->spare)
    run->spare->peak_bytes = run->peak_bytes;
  if (run->pool &&
      __atomic_compare_exchange_n(&run->pool->spare, &none, run->spare, 0,
                                  __ATOMIC_RELEASE, __ATOMIC_RELAXED))
    run->spare = NULL;
  free_spare(run);
}

int nibble_run_call(struct nibble_run *run, void (*function)(void **),
                    void **arguments, const volatile int *stop,
                    struct nibble_pool *pool) {
  run->allocations = NULL;
  run->live_bytes = run->peak_bytes = 0;
  run->pool = pool;
  take_pool(run);
  run->stop = stop;
  run->outer = current;
  run->code = NIBBLE_RUN_OK;
  run->message[0] = 0;
  current = run;
  if (_setjmp(run->entry) == 0)
    function(arguments);
  current = run->outer;
  if (run->code != NIBBLE_RUN_OK) {
    free_spare(run);
    free_all(run->allocations);
    run->allocations = NULL;
  }
  return run->code;
}

void nibble_run_free(struct nibble_run *run) {
  struct nibble_allocation *allocation = run->allocations;
  while (allocation) {
    struct nibble_allocation *next = allocation->next;
    if (allocation->size >= LARGE)
      add_spare(run, allocation);
    else
      free(allocation);
    allocation = next;
  }
  run->allocations = NULL;
  fill_pool(run);
}

void nibble_pool_free(struct nibble_pool *pool) {
  free_all(pool->spare);
  pool->spare = NULL;
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
  if (allocation->size >= LARGE) {
    run->live_bytes -= allocation->used;
    run->owned_bytes -= allocation->size;
  }
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
  allocation->size = allocation->used = size;
  return allocation + 1;
}

/* The smallest spare buffer for `size` of at most `largest` bytes; null where
 * there is none. */
static struct nibble_allocation *take_spare(struct nibble_run *run, size_t size,
                                            size_t largest) {
  struct nibble_allocation **link = &run->spare, **best = NULL;
  for (; *link; link = &(*link)->next)
    if ((*link)->size >= size && (*link)->size <= largest &&
        (!best || (*link)->size < (*best)->size))
      best = link;
  if (!best)
    return NULL;
  struct nibble_allocation *allocation = *best;
  *best = allocation->next;
  allocation->previous = allocation->next = NULL;
  return allocation;
}

static size_t most(size_t a, size_t b) { return a > b ? a : b; }

/* Prefers a spare buffer that `size` fills at least half, then memory that the
 * run may still ask for, then any spare buffer; at last spare ones, which are
 * too small, give way. */
static struct nibble_allocation *find_buffer(struct nibble_run *run,
                                             size_t size) {
  struct nibble_allocation *found =
      take_spare(run, size, size > SIZE_MAX / 2 ? SIZE_MAX : 2 * size);
  size_t peak =
      most(most(run->peak_bytes, run->known_bytes), run->live_bytes + size);
  if (!found && run->owned_bytes + size > 2 * peak)
    found = take_spare(run, size, SIZE_MAX);
  if (found)
    return found;
  while (run->spare && run->owned_bytes + size > 2 * peak)
    drop_spare(run);
  void *buffer = nibble_run_allocate(size);
  if (!buffer)
    return NULL;
  run->owned_bytes += size;
  return (struct nibble_allocation *)buffer - 1;
}

static void *allocate_for(struct nibble_run *run, size_t size) {
  if (!run || size < LARGE)
    return nibble_run_allocate(size);
  struct nibble_allocation *allocation = find_buffer(run, size);
  if (!allocation)
    return NULL;
  allocation->used = size;
  run->live_bytes += size;
  run->peak_bytes = most(run->peak_bytes, run->live_bytes);
  return allocation + 1;
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
  run->owned_bytes += allocation->size;
  add_spare(run, allocation);
}

//===- Run.h - One run of a compiled model ------------------------*- C -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What compiled code calls while it runs. A run owns all buffers that its code
// allocates and can be left at any point of it: a failed check jumps to where
// the run began, and its buffers are freed there. Only the thread that began a
// run may fail it.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_RUNTIME_RUN_H
#define NIBBLE_RUNTIME_RUN_H

#include <stddef.h>
#include <stdint.h>

// NOLINTBEGIN(readability-identifier-naming): the names of a C interface.

#ifdef __cplusplus
extern "C" {
#endif

/* How a call ended; compiled models return these numbers (Types.h). */
enum {
  NIBBLE_RUN_OK = 0,
  NIBBLE_RUN_OUT_OF_MEMORY = 2,
  NIBBLE_RUN_CHECK_FAILED = 3,
  NIBBLE_RUN_INTERRUPTED = 4,
  NIBBLE_RUN_DEVICE_FAILED = 7
};

#ifdef __cplusplus
#define NIBBLE_ALIGN_16 alignas(16)
#else
#define NIBBLE_ALIGN_16 _Alignas(16)
#endif

struct nibble_allocation;

/* Buffers that a model keeps from run to run, so that the pages of large ones
 * are not given back and asked for again: at most twice the bytes that the last
 * run had in use at once. Zero at first. Any number of threads may run with one
 * pool; the first takes what there is, and the others begin with nothing. */
struct nibble_pool {
  struct nibble_allocation *spare;
};

struct nibble_run {
  /* Where a failure jumps to: at least as large as any libc's jmp_buf. */
  NIBBLE_ALIGN_16 char entry[512];
  /* The buffers that exist, the latest first. */
  struct nibble_allocation *allocations;
  /* Buffers that were freed and wait to be used again, so that the pages of
   * large ones are not given back and asked for over and over. */
  struct nibble_allocation *spare;
  struct nibble_pool *pool;
  /* Bytes of large buffers: in use, at most in use so far, at most in use in
   * the run that left the pool, and of all that exist. The last are at most
   * twice those that were ever in use. */
  size_t live_bytes, peak_bytes, known_bytes, owned_bytes;
  /* Ends the run when it is not null and points to anything but 0. */
  const volatile int *stop;
  /* The run that this thread was in before. */
  struct nibble_run *outer;
  int code;
  char message[496];
};

/* Calls `function` with `arguments` as a run and returns how it ended; after a
 * failure, `run->message` says why, and no buffer of the run is left. After a
 * success the buffers that the code did not free are still there, until
 * nibble_run_free. `pool` may be null. */
int nibble_run_call(struct nibble_run *run, void (*function)(void **),
                    void **arguments, const volatile int *stop,
                    struct nibble_pool *pool);

/* Takes `buffer`, a start of a buffer, out of the run that made it; who calls
 * owns it then. */
void nibble_run_take(void *buffer);

/* A buffer that no run owns; null where there is no memory for it. */
void *nibble_run_allocate(size_t size);

/* Frees all buffers of the run, or leaves them to its pool. */
void nibble_run_free(struct nibble_run *run);

/* Frees what is in the pool, which no run uses. */
void nibble_pool_free(struct nibble_pool *pool);

//===--- Called by compiled code ------------------------------------------===//

/* Ends the current run. */
void nibble_runtime_fail(int code, const char *message);
/* a * b, both sizes; ends the run where one is negative or the product too
 * large. */
int64_t nibble_runtime_multiply(int64_t a, int64_t b);
/* Ends the run where its caller wants it. */
void nibble_runtime_check_interrupt(void);
/* 1 where weights that stream by arrive sooner when code fetches them ahead,
 * 0 where the processor does as well or better by itself. */
int64_t nibble_runtime_reads_ahead(void);

/* Buffers, aligned to 64 bytes; the names are upstream's. */
void *_mlir_memref_to_llvm_alloc(size_t size);
void *_mlir_memref_to_llvm_aligned_alloc(size_t alignment, size_t size);
void _mlir_memref_to_llvm_free(void *buffer);

#ifdef __cplusplus
}
#endif

// NOLINTEND(readability-identifier-naming)

#endif /* NIBBLE_RUNTIME_RUN_H */

//===- Libc.h - What the runtime needs of libc --------------------*- C -*-===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// The runtime is compiled for every architecture on any, so it cannot read the
// headers of the host. These are the functions and numbers that it uses; they
// are the same on all of Linux's 64-bit architectures that Nibble knows.
//
//===----------------------------------------------------------------------===//

#ifndef NIBBLE_LIB_RUNTIME_LIBC_H
#define NIBBLE_LIB_RUNTIME_LIBC_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

void *malloc(size_t size);
void *calloc(size_t count, size_t size);
int posix_memalign(void **result, size_t alignment, size_t size);
void free(void *pointer);
_Noreturn void abort(void);

void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
int strcmp(const char *a, const char *b);
size_t strlen(const char *text);
char *strerror(int number);
int snprintf(char *restrict to, size_t size, const char *restrict format, ...);
int vsnprintf(char *restrict to, size_t size, const char *restrict format,
              va_list arguments);

int _setjmp(void *buffer) __attribute__((returns_twice));
_Noreturn void longjmp(void *buffer, int value);

int *__errno_location(void);
int open(const char *path, int flags, ...);
int close(int descriptor);
long read(int descriptor, void *to, size_t size);
long lseek(int descriptor, long offset, int origin);
void *mmap(void *address, size_t size, int protection, int flags,
           int descriptor, long offset);
int munmap(void *address, size_t size);

void *dlopen(const char *file, int flags);
int dlclose(void *library);
void *dlsym(void *library, const char *name);
char *dlerror(void);
enum { RTLD_LOCAL = 0, RTLD_NOW = 2 };
struct nibble_dl_info {
  const char *file;
  void *base;
  const char *symbol;
  void *address;
};
int dladdr(const void *address, struct nibble_dl_info *info);
unsigned long getauxval(unsigned long type);

enum {
  NIBBLE_O_RDONLY = 0,
  NIBBLE_O_CLOEXEC = 02000000,
  NIBBLE_SEEK_END = 2,
  NIBBLE_PROT_READ = 1,
  NIBBLE_MAP_SHARED = 1
};

#endif /* NIBBLE_LIB_RUNTIME_LIBC_H */

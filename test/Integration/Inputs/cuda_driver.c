/* Stands in for libcuda.so.1 in tests: its memory is this machine's, and nibble-simulate
 * runs its kernels. What it is to be comes from the environment:
 *
 *   STUB_DEVICES      how many GPUs there are (1)
 *   STUB_CAPABILITY   their compute capability (8.0)
 *   STUB_MEMORY       bytes of a GPU (1 << 30)
 *   STUB_SHARED       bytes of shared memory of a block (166912)
 *   STUB_LAUNCH       an error that every launch gives
 *   STUB_KERNEL       an error that loading a kernel gives
 *   STUB_SIMULATOR    nibble-simulate
 *   STUB_CODE         the kernels' LLVM IR: a file, or a folder with one a kernel
 *   STUB_SYNCHRONIZE  an error that waiting gives
 *   STUB_FOLDER       where the buffers of a launch are written
 *
 * Built with -DWITHOUT_MEMORY_INFO it is a driver that lacks a function.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OUT_OF_MEMORY = 2, INVALID_VALUE = 1, NO_DEVICE = 100 };

static const char *setting(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value ? value : otherwise;
}
static size_t number(const char *name, const char *otherwise) {
  return strtoull(setting(name, otherwise), NULL, 10);
}

int cuInit(unsigned flags) {
  return number("STUB_DEVICES", "1") ? (int)flags : NO_DEVICE;
}
int cuGetErrorString(int error, const char **text) {
  static char buffer[64];
  snprintf(buffer, sizeof(buffer), "what stub error %d means", error);
  *text = buffer;
  return 0;
}
int cuDeviceGetCount(int *count) {
  *count = (int)number("STUB_DEVICES", "1");
  return 0;
}
int cuDeviceGet(int *device, int which) {
  *device = which;
  return 0;
}
int cuDeviceGetName(char *name, int size, int device) {
  snprintf(name, (size_t)size, "Stub %d", device);
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  int major, minor;
  sscanf(setting("STUB_CAPABILITY", "8.0"), "%d.%d", &major, &minor);
  switch (attribute) {
  case 16:
    *value = 4;
    return 0;
  case 75:
    *value = major;
    return 0;
  case 76:
    *value = minor;
    return 0;
  case 97:
    *value = (int)number("STUB_SHARED", "166912");
    return 0;
  default:
    return INVALID_VALUE;
  }
}

/* Contexts: 1 is the device's. Whoever enters one leaves it. */
static int depth;
int cuDevicePrimaryCtxRetain(void **context, int device) {
  (void)device;
  *context = (void *)1;
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  (void)device;
  if (depth)
    fprintf(stderr, "stub: %d contexts were not left\n", depth);
  return 0;
}
int cuCtxPushCurrent_v2(void *context) {
  ++depth;
  return context ? 0 : INVALID_VALUE;
}
int cuCtxPopCurrent_v2(void **context) {
  *context = (void *)1;
  return --depth < 0 ? INVALID_VALUE : 0;
}

enum { MOST = 1024 };
static struct {
  char *bytes;
  size_t size;
} buffers[MOST];

static size_t in_use(void) {
  size_t sum = 0;
  for (int i = 0; i < MOST; ++i)
    sum += buffers[i].bytes ? buffers[i].size : 0;
  return sum;
}
#ifndef WITHOUT_MEMORY_INFO
int cuMemGetInfo_v2(size_t *available, size_t *total) {
  *total = number("STUB_MEMORY", "1073741824");
  *available = *total - in_use();
  return 0;
}
#endif
int cuMemAlloc_v2(uint64_t *memory, size_t size) {
  if (in_use() + size > number("STUB_MEMORY", "1073741824"))
    return OUT_OF_MEMORY;
  for (int i = 0; i < MOST; ++i)
    if (!buffers[i].bytes) {
      buffers[i].bytes = aligned_alloc(256, (size + 255) / 256 * 256);
      buffers[i].size = size;
      memset(buffers[i].bytes, 0xff, size);
      *memory = (uint64_t)(uintptr_t)buffers[i].bytes;
      return 0;
    }
  return OUT_OF_MEMORY;
}
int cuMemAllocManaged(uint64_t *memory, size_t size, unsigned flags) {
  return flags == 1 ? cuMemAlloc_v2(memory, size) : INVALID_VALUE;
}
/* The buffer that an address is in, and how far. */
static int find(uint64_t memory, size_t *offset) {
  for (int i = 0; i < MOST; ++i) {
    *offset = memory - (uint64_t)(uintptr_t)buffers[i].bytes;
    if (buffers[i].bytes && *offset < buffers[i].size)
      return i;
  }
  return -1;
}
int cuMemFree_v2(uint64_t memory) {
  size_t offset;
  int i = find(memory, &offset);
  if (i < 0 || offset)
    return INVALID_VALUE;
  free(buffers[i].bytes);
  buffers[i].bytes = NULL;
  return 0;
}
int cuMemsetD8_v2(uint64_t memory, unsigned char value, size_t size) {
  memset((void *)(uintptr_t)memory, value, size);
  return 0;
}
int cuMemcpyHtoD_v2(uint64_t memory, const void *source, size_t size) {
  memcpy((void *)(uintptr_t)memory, source, size);
  return 0;
}
int cuMemcpyDtoH_v2(void *target, uint64_t memory, size_t size) {
  memcpy(target, (const void *)(uintptr_t)memory, size);
  return 0;
}

int cuModuleLoadData(void **module, const void *image) {
  *module = (void *)image;
  return strstr(image, ".entry") ? (int)number("STUB_KERNEL", "0")
                                 : INVALID_VALUE;
}
int cuModuleUnload(void *module) { return module ? 0 : INVALID_VALUE; }
/* A function is the place of its declaration in the PTX. */
int cuModuleGetFunction(void **function, void *module, const char *name) {
  char entry[256];
  snprintf(entry, sizeof(entry), ".entry %s(", name);
  *function = strstr(module, entry);
  return *function ? 0 : INVALID_VALUE;
}
int cuCtxSynchronize(void) { return (int)number("STUB_SYNCHRONIZE", "0"); }
int cuFuncSetAttribute(void *function, int attribute, int value) {
  (void)function;
  return attribute == 8 && value > 0 ? 0 : INVALID_VALUE;
}

static void copy_file(const char *folder, int buffer, const char *mode) {
  char path[512];
  snprintf(path, sizeof(path), "%s/buffer%d", folder, buffer);
  FILE *file = fopen(path, mode);
  size_t done =
      mode[0] == 'w'
          ? fwrite(buffers[buffer].bytes, 1, buffers[buffer].size, file)
          : fread(buffers[buffer].bytes, 1, buffers[buffer].size, file);
  if (done != buffers[buffer].size)
    fprintf(stderr, "stub: cannot copy %s\n", path);
  fclose(file);
}

/* Writes an argument, whose declaration starts at `declared`; returns the buffer
 * that it points into, or -1. */
static int write_argument(FILE *file, const char *declared, const void *value,
                          const char *folder) {
  int bits = 0;
  sscanf(declared, ".param .%*1[bufs]%d", &bits);
  uint64_t word = 0;
  memcpy(&word, value, (size_t)bits / 8);
  size_t offset;
  int buffer = -1;
  if (strncmp(declared + strlen(".param .u64 "), ".ptr", 4) == 0)
    buffer = find(word, &offset);
  if (buffer < 0) {
    fprintf(file, "{\"i64\": %lld}", (long long)word);
    return -1;
  }
  copy_file(folder, buffer, "w");
  fprintf(file, "{\"output\": \"buffer%d\", \"offset\": %zu}", buffer, offset);
  return buffer;
}

static int ends_with(const char *text, const char *end) {
  size_t length = strlen(text), other = strlen(end);
  return length >= other && strcmp(text + length - other, end) == 0;
}

int cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y,
                   unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void *stream,
                   void **arguments, void **extra) {
  (void)stream;
  (void)extra;
  int error = (int)number("STUB_LAUNCH", "0");
  if (error)
    return error;
  enum { MOST_ARGUMENTS = 256 };
  const char *folder = setting("STUB_FOLDER", ".");
  const char *code = setting("STUB_CODE", ".");
  char path[512], command[2048], name[256];
  sscanf(function, ".entry %255[^(]", name);
  snprintf(path, sizeof(path), "%s/launches.json", folder);
  FILE *file = fopen(path, "w");
  fprintf(file,
          "{\"launches\": [{\"kernel\": \"%s\", \"grid\": [%u, %u, %u],\n"
          "\"block\": [%u, %u, %u], \"shared_bytes\": %u, \"arguments\": [",
          name, grid_x, grid_y, grid_z, block_x, block_y, block_z,
          shared_bytes);
  int used[MOST_ARGUMENTS], count = 0;
  const char *end = strchr(function, ')');
  for (const char *next = strstr(function, ".param"); next && next < end;
       next = strstr(next + 1, ".param"), ++count) {
    fputs(count ? ", " : "", file);
    used[count] = write_argument(file, next, arguments[count], folder);
  }
  fprintf(file, "]}]}\n");
  fclose(file);
  printf("%s grid %u %u %u\n", name, grid_x, grid_y, grid_z);
  fflush(stdout);
  if (ends_with(code, ".ll"))
    snprintf(command, sizeof(command), "'%s' '%s' '%s' --check",
             setting("STUB_SIMULATOR", "nibble-simulate"), code, path);
  else
    snprintf(command, sizeof(command), "'%s' '%s/%s.ll' '%s' --check",
             setting("STUB_SIMULATOR", "nibble-simulate"), code, name, path);
  if (system(command))
    return 700;
  for (int i = 0; i < count; ++i)
    if (used[i] >= 0)
      copy_file(folder, used[i], "r");
  return 0;
}

struct config {
  unsigned grid[3], block[3], shared_bytes;
  void *stream;
  const int *attributes;
  unsigned num_attributes;
};
int cuLaunchKernelEx(const struct config *config, void *function,
                     void **arguments, void **extra) {
  if (config->num_attributes != 1 || config->attributes[0] != 6 ||
      config->attributes[2] != 1)
    return INVALID_VALUE;
  printf("overlapping ");
  return cuLaunchKernel(function, config->grid[0], config->grid[1],
                        config->grid[2], config->block[0], config->block[1],
                        config->block[2], config->shared_bytes, config->stream,
                        arguments, extra);
}


/* Multiplies what lies in files by the kernels of `nibble kernels --emit c`:
 *   gpu_consumer FOLDER M N K MAX_ROWS GPU */

#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>

/* The bytes of FOLDER/name; null where there is no such file. */
static void *read_file(const char *folder, const char *name) {
  char path[512];
  snprintf(path, sizeof(path), "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (!file)
    return NULL;
  fseek(file, 0, SEEK_END);
  size_t size = (size_t)ftell(file);
  rewind(file);
  void *bytes = malloc(size);
  if (fread(bytes, 1, size, file) != size)
    exit(100);
  fclose(file);
  return bytes;
}

static int multiply(nibble_gpu *gpu, const char *folder, int32_t M, int32_t N,
                    int32_t K, int32_t max_rows) {
  void *x = read_file(folder, "x"), *codes = read_file(folder, "codes");
  void *scales = read_file(folder, "scales"), *bias = read_file(folder, "bias");
  uint16_t *y = malloc((size_t)M * (size_t)N * 2);
  nibble_gpu_weight *weight;
  int status = nibble_gpu_load_weight(gpu, K, N, max_rows, codes, scales, bias,
                                      &weight);
  if (!status)
    status = nibble_gpu_multiply_host(weight, M, x, y);
  /* Scratch memory must serve again. */
  if (!status)
    status = nibble_gpu_multiply_host(weight, M, x, y);
  if (!status) {
    char path[512];
    snprintf(path, sizeof(path), "%s/y", folder);
    FILE *file = fopen(path, "wb");
    fwrite(y, 2, (size_t)M * (size_t)N, file);
    fclose(file);
  }
  nibble_gpu_free_weight(weight);
  free(x);
  free(codes);
  free(scales);
  free(bias);
  free(y);
  return status;
}

int main(int argc, char **argv) {
  if (argc != 7)
    return 100;
  nibble_gpu *gpu;
  int status = nibble_gpu_open(&nibble_kernels, atoi(argv[6]), &gpu);
  if (!status)
    status = multiply(gpu, argv[1], atoi(argv[2]), atoi(argv[3]), atoi(argv[4]),
                      atoi(argv[5]));
  if (status)
    fprintf(stderr, "error: %s\n", nibble_gpu_message());
  nibble_gpu_close(gpu);
  return status;
}

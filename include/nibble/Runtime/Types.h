#ifndef NIBBLE_RUNTIME_TYPES_H
#define NIBBLE_RUNTIME_TYPES_H

#include <stddef.h>
#include <stdint.h>

/* NOLINTBEGIN(readability-identifier-naming): the names of a C interface. */

/* How a call ended. */
typedef enum nibble_status {
  NIBBLE_OK = 0,
  /* An argument has not the number, type, shape or place in memory that the
   * model takes. */
  NIBBLE_INVALID_ARGUMENT = 1,
  NIBBLE_OUT_OF_MEMORY = 2,
  /* The values of the inputs are not what a node of the model takes: an index
   * out of range, shapes that do not agree. */
  NIBBLE_INVALID_VALUE = 3,
  NIBBLE_INTERRUPTED = 4,
  /* The file of the weights is missing, truncated or another model's. */
  NIBBLE_BAD_WEIGHTS = 5,
  /* The library has no code for this machine. */
  NIBBLE_UNSUPPORTED_CPU = 6,
  /* There is no GPU that the library has code for, or it failed. */
  NIBBLE_DEVICE_FAILED = 7
} nibble_status;

/* DLPack's DLDataType: code 0 is a signed integer, 1 unsigned, 2 a float, 4
 * bfloat16, 6 a bool in a byte, 7 and above the floats of 8 bits and less.
 * Elements of less than 8 bits take a byte each; integers are extended by their
 * sign, and have the type of that byte. */
typedef struct nibble_data_type {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} nibble_data_type;

/* DLPack's DLTensor, field by field. */
typedef struct nibble_tensor {
  void *data;
  /* 1 (kDLCPU) and 0. */
  struct {
    int32_t type, id;
  } device;
  int32_t ndim;
  nibble_data_type dtype;
  int64_t *shape;
  /* Null, or what a row-major tensor without gaps has. */
  int64_t *strides;
  uint64_t byte_offset;
} nibble_tensor;

/* An input or output of a model. */
typedef struct nibble_value {
  const char *name;
  nibble_data_type dtype;
  int32_t ndim;
  /* -1 where a size is known only at run time. */
  const int64_t *shape;
  /* The names of the dimensions; null where one has none. Dimensions of the
   * same name have the same size. */
  const char *const *dimensions;
  /* Not 0 for an input that a run changes: a cache with room for more. */
  int32_t updated;
} nibble_value;

/* NOLINTEND(readability-identifier-naming) */

#endif /* NIBBLE_RUNTIME_TYPES_H */

//===- Model.c - The C interface of a compiled model ----------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Internal.h"
#include "Libc.h"

enum { DEVICE_CPU = 1, WEIGHT_ALIGNMENT = 64 };

//===----------------------------------------------------------------------===//
// Errors
//===----------------------------------------------------------------------===//

static _Thread_local char last_error[768];

const char *nibble_model_last_error(void) { return last_error; }

__attribute__((format(printf, 2, 3))) static nibble_status
fail(nibble_status status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(last_error, sizeof(last_error), format, arguments);
  va_end(arguments);
  return status;
}

static nibble_status fail_memory(void) {
  return fail(NIBBLE_OUT_OF_MEMORY, "no memory to call the model");
}

/* "2x?x3", or "scalar", into `text`. */
static const char *print_shape(char *text, size_t size, const int64_t *shape,
                               int32_t ndim) {
  size_t used = 0;
  snprintf(text, size, "scalar");
  for (int32_t axis = 0; axis < ndim && used + 24 < size; ++axis) {
    const char *cross = axis ? "x" : "";
    used += (size_t)(shape[axis] < 0
                         ? snprintf(text + used, size - used, "%s?", cross)
                         : snprintf(text + used, size - used, "%s%lld", cross,
                                    (long long)shape[axis]));
  }
  return text;
}

/* "float32"; the names are NumPy's where NumPy has the type. */
static const char *print_type(char *text, size_t size, nibble_data_type type) {
  static const char *const names[] = {"int",    "uint",    "float", "handle",
                                      "bfloat", "complex", "bool"};
  if (type.lanes != 1)
    snprintf(text, size, "%u lanes of type %u:%u", type.lanes, type.code,
             type.bits);
  else if (type.code == 6)
    snprintf(text, size, "bool");
  else if (type.code < 6)
    snprintf(text, size, "%s%u", names[type.code], type.bits);
  else
    snprintf(text, size, "type %u of DLPack", type.code);
  return text;
}

//===----------------------------------------------------------------------===//
// Making a model
//===----------------------------------------------------------------------===//

/* MLIR's descriptor of a buffer: two pointers, an offset, sizes and strides. */
static size_t descriptor_words(int64_t ndim) { return 3 + 2 * (size_t)ndim; }

static void fill_descriptor(int64_t *words, const void *data, int64_t ndim,
                            const int64_t *shape) {
  int64_t stride = 1;
  memcpy(words, &data, sizeof(data));
  memcpy(words + 1, &data, sizeof(data));
  words[2] = 0;
  for (int64_t axis = ndim; axis-- > 0;) {
    words[3 + axis] = shape[axis];
    words[3 + ndim + axis] = stride;
    stride *= shape[axis];
  }
}

static const nibble_row *choose_row(const nibble_model_info *info) {
  uint64_t host = nibble_host_features();
  /* The later the better. */
  for (int64_t i = info->num_rows; i-- > 0;)
    if ((info->rows[i].features & ~host) == 0)
      return &info->rows[i];
  return NULL;
}

static nibble_status fail_row(const nibble_model_info *info) {
  char names[256];
  size_t used = 0;
  names[0] = 0;
  for (int64_t i = 0; i < info->num_rows && used + 40 < sizeof(names); ++i)
    used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
                             i ? ", " : "", info->rows[i].name);
  return fail(NIBBLE_UNSUPPORTED_CPU,
              "model '%s' was compiled for %s, and this processor lacks "
              "features of it; compile with --target=generic or multi",
              info->name, names);
}

/* Where the library is, with the name of the file of weights instead of its
 * own. */
static void find_beside_library(const nibble_model_info *info, char *path,
                                size_t size) {
  struct nibble_dl_info library;
  size_t folder = 0;
  if (dladdr(info, &library) && library.file)
    for (size_t i = 0; library.file[i]; ++i)
      if (library.file[i] == '/')
        folder = i + 1;
  snprintf(path, size, "%.*s%s", (int)folder, folder ? library.file : "",
           info->weights_file);
}

static nibble_status check_weights(const nibble_model_info *info,
                                   const char *path, const char *bytes,
                                   size_t size) {
  nibble_weights_header header;
  if (size < sizeof(header))
    return fail(NIBBLE_BAD_WEIGHTS,
                "'%s' has %zu bytes and is no file of weights", path, size);
  memcpy(&header, bytes, sizeof(header));
  if (memcmp(header.magic, NIBBLE_WEIGHTS_MAGIC, sizeof(header.magic)) != 0)
    return fail(NIBBLE_BAD_WEIGHTS, "'%s' is no file of weights", path);
  if (header.hash != info->weights_hash || header.size != info->weights_size)
    return fail(NIBBLE_BAD_WEIGHTS,
                "'%s' has the weights of another model than '%s', or of "
                "another compilation of it",
                path, info->name);
  if (size != sizeof(header) + header.size)
    return fail(NIBBLE_BAD_WEIGHTS,
                "'%s' has %zu bytes instead of %llu: it was truncated or "
                "changed",
                path, size, (unsigned long long)(sizeof(header) + header.size));
  return NIBBLE_OK;
}

static nibble_status map_weights(nibble_model *model, const char *path) {
  int descriptor = open(path, NIBBLE_O_RDONLY | NIBBLE_O_CLOEXEC);
  char byte;
  /* A folder can be opened, not read. */
  long got = descriptor < 0 ? -1 : read(descriptor, &byte, 1);
  if (got >= 0) {
    long size = lseek(descriptor, 0, NIBBLE_SEEK_END);
    void *mapping = size <= 0 ? NULL
                              : mmap(NULL, (size_t)size, NIBBLE_PROT_READ,
                                     NIBBLE_MAP_SHARED, descriptor, 0);
    if (size == 0) {
      close(descriptor);
      return fail(NIBBLE_BAD_WEIGHTS, "'%s' is empty", path);
    }
    if (mapping && mapping != (void *)-1) {
      model->mapping = mapping;
      model->mapping_size = (size_t)size;
    }
  }
  const char *why = strerror(*__errno_location());
  if (descriptor >= 0)
    close(descriptor);
  if (!model->mapping)
    return fail(NIBBLE_BAD_WEIGHTS,
                "cannot read the weights of '%s' in '%s': %s",
                model->info->name, path, why);
  return check_weights(model->info, path, model->mapping, model->mapping_size);
}

static nibble_status load_weights(nibble_model *model, const char *path,
                                  const char **bytes) {
  const nibble_model_info *info = model->info;
  char beside[4096];
  *bytes = info->weights;
  if (info->weights || info->weights_size == 0)
    return NIBBLE_OK;
  if (!path) {
    find_beside_library(info, beside, sizeof(beside));
    path = beside;
  }
  nibble_status status = map_weights(model, path);
  if (status == NIBBLE_OK)
    *bytes = (const char *)model->mapping + sizeof(nibble_weights_header);
  return status;
}

static nibble_status describe_weights(nibble_model *model, const char *bytes) {
  const nibble_row *row = model->row;
  size_t words = 0;
  for (int64_t i = 0; i < row->num_weights; ++i)
    words += descriptor_words(row->weights[i].ndim);
  model->descriptors = calloc(words + 1, sizeof(int64_t));
  if (!model->descriptors)
    return fail_memory();
  int64_t *next = model->descriptors;
  for (int64_t i = 0; i < row->num_weights; ++i) {
    const nibble_weight *weight = &row->weights[i];
    fill_descriptor(next, bytes + weight->offset, weight->ndim, weight->shape);
    next += descriptor_words(weight->ndim);
  }
  return NIBBLE_OK;
}

/* Moves the weights at *bytes to the GPU of the model, if it has one. */
static nibble_status open_device(nibble_model *model, const char **bytes) {
  const nibble_model_info *info = model->info;
  const char *message;
  if (!info->device)
    return NIBBLE_OK;
  nibble_status status =
      info->device->open(info->device_code, *bytes, info->weights_size,
                         &model->device, bytes, &message);
  return status == NIBBLE_OK ? NIBBLE_OK
                             : fail(status, "'%s': %s", info->name, message);
}

nibble_status nibble_model_create(const nibble_model_info *info,
                                  const char *weights_path,
                                  nibble_model **result) {
  const char *bytes = NULL;
  if (!result)
    return fail(NIBBLE_INVALID_ARGUMENT, "the place for the model is NULL");
  *result = NULL;
  const nibble_row *row = choose_row(info);
  if (!row)
    return fail_row(info);
  nibble_model *model = calloc(1, sizeof(*model) + sizeof(*model->pool));
  if (!model)
    return fail_memory();
  model->pool = (struct nibble_pool *)(model + 1);
  model->info = info;
  model->row = row;
  nibble_status status = load_weights(model, weights_path, &bytes);
  if (status == NIBBLE_OK)
    status = open_device(model, &bytes);
  if (status == NIBBLE_OK)
    status = describe_weights(model, bytes);
  if (status != NIBBLE_OK) {
    nibble_model_destroy(model);
    return status;
  }
  *result = model;
  return NIBBLE_OK;
}

void nibble_model_destroy(nibble_model *model) {
  if (!model)
    return;
  if (model->device)
    model->info->device->close(model->device);
  if (model->mapping)
    munmap(model->mapping, model->mapping_size);
  free(model->descriptors);
  nibble_pool_free(model->pool);
  free(model);
}

const char *nibble_model_target(const nibble_model *model) {
  return model ? model->row->name : "";
}

const nibble_value *nibble_model_inputs(const nibble_model_info *info,
                                        size_t *count) {
  if (count)
    *count = (size_t)info->num_inputs;
  return info->inputs;
}

const nibble_value *nibble_model_outputs(const nibble_model_info *info,
                                         size_t *count) {
  if (count)
    *count = (size_t)info->num_outputs;
  return info->outputs;
}

//===----------------------------------------------------------------------===//
// Checking arguments
//===----------------------------------------------------------------------===//

/* Bytes of a tensor without gaps; false where there is no such number. */
static int count_bytes(nibble_data_type type, const int64_t *shape,
                       int32_t ndim, size_t *bytes) {
  *bytes = (type.bits + 7u) / 8;
  for (int32_t axis = 0; axis < ndim; ++axis)
    if (shape[axis] < 0 ||
        __builtin_mul_overflow(*bytes, (size_t)shape[axis], bytes) ||
        *bytes > (size_t)INT64_MAX)
      return 0;
  return 1;
}

static int is_contiguous(const nibble_tensor *tensor) {
  int64_t stride = 1;
  if (!tensor->strides)
    return 1;
  for (int32_t axis = tensor->ndim; axis-- > 0;)
    if (tensor->shape[axis] == 0)
      return 1;
  for (int32_t axis = tensor->ndim; axis-- > 0;) {
    if (tensor->shape[axis] != 1 && tensor->strides[axis] != stride)
      return 0;
    stride *= tensor->shape[axis];
  }
  return 1;
}

/* The size that an earlier input has where its dimension is called `name`; -1
 * where none is. */
static int64_t find_dimension(const nibble_model_info *info,
                              const nibble_tensor *inputs, int64_t num_inputs,
                              const char *name) {
  for (int64_t i = 0; i < num_inputs; ++i)
    for (int32_t axis = 0; axis < info->inputs[i].ndim; ++axis) {
      const char *other = info->inputs[i].dimensions[axis];
      if (other && strcmp(other, name) == 0)
        return inputs[i].shape[axis];
    }
  return -1;
}

/* Compares type and rank of `tensor` with what the model declares. */
static nibble_status check_type(const char *kind, const nibble_value *value,
                                const nibble_tensor *tensor) {
  char actual[64], expected[64];
  if (tensor->dtype.code != value->dtype.code ||
      tensor->dtype.bits != value->dtype.bits ||
      tensor->dtype.lanes != value->dtype.lanes)
    return fail(NIBBLE_INVALID_ARGUMENT,
                "%s '%s' has elements of type %s, not %s", kind, value->name,
                print_type(actual, sizeof(actual), tensor->dtype),
                print_type(expected, sizeof(expected), value->dtype));
  if (tensor->ndim != value->ndim)
    return fail(NIBBLE_INVALID_ARGUMENT, "%s '%s' has %d dimensions, not %d",
                kind, value->name, tensor->ndim, value->ndim);
  if (tensor->ndim > 0 && !tensor->shape)
    return fail(NIBBLE_INVALID_ARGUMENT, "%s '%s' has no shape", kind,
                value->name);
  return NIBBLE_OK;
}

/* Compares the place of `tensor` in memory with what code can use. */
static nibble_status check_memory(const char *kind, const nibble_value *value,
                                  const nibble_tensor *tensor, size_t bytes) {
  size_t alignment = (value->dtype.bits + 7u) / 8;
  if (tensor->device.type != DEVICE_CPU)
    return fail(NIBBLE_INVALID_ARGUMENT,
                "%s '%s' is on device %d of DLPack, not on the CPU (1)", kind,
                value->name, tensor->device.type);
  if (!tensor->data && bytes > 0)
    return fail(NIBBLE_INVALID_ARGUMENT, "%s '%s' has no data", kind,
                value->name);
  if (((uintptr_t)tensor->data + tensor->byte_offset) % alignment != 0)
    return fail(NIBBLE_INVALID_ARGUMENT,
                "the data of %s '%s' is not aligned to %zu bytes", kind,
                value->name, alignment);
  if (!is_contiguous(tensor))
    return fail(NIBBLE_INVALID_ARGUMENT,
                "%s '%s' has gaps or another order than row-major; copy it "
                "first",
                kind, value->name);
  return NIBBLE_OK;
}

static nibble_status check_input(const nibble_model_info *info, int64_t index,
                                 const nibble_tensor *inputs, int with_data) {
  const nibble_value *value = &info->inputs[index];
  const nibble_tensor *tensor = &inputs[index];
  char actual[256];
  size_t bytes;
  nibble_status status = check_type("input", value, tensor);
  if (status != NIBBLE_OK)
    return status;
  print_shape(actual, sizeof(actual), tensor->shape, tensor->ndim);
  for (int32_t axis = 0; axis < value->ndim; ++axis) {
    int64_t expected = value->shape[axis];
    const char *name = value->dimensions[axis];
    if (tensor->shape[axis] < 0)
      return fail(NIBBLE_INVALID_ARGUMENT,
                  "input '%s' has a negative size in dimension %d", value->name,
                  axis);
    if (expected < 0 && name)
      expected = find_dimension(info, inputs, index, name);
    if (expected < 0 && name)
      for (int32_t before = 0; before < axis; ++before)
        if (value->dimensions[before] &&
            strcmp(value->dimensions[before], name) == 0)
          expected = tensor->shape[before];
    if (expected >= 0 && tensor->shape[axis] != expected)
      return fail(NIBBLE_INVALID_ARGUMENT,
                  "input '%s' is of shape %s: dimension %d%s%s%s has to be "
                  "%lld",
                  value->name, actual, axis, name ? " (" : "", name ? name : "",
                  name ? ")" : "", (long long)expected);
  }
  if (!count_bytes(value->dtype, tensor->shape, tensor->ndim, &bytes))
    return fail(NIBBLE_INVALID_ARGUMENT,
                "input '%s' of shape %s has more bytes than can be addressed",
                value->name, actual);
  return with_data ? check_memory("input", value, tensor, bytes) : NIBBLE_OK;
}

static nibble_status check_inputs(const nibble_model_info *info,
                                  const nibble_tensor *inputs,
                                  size_t num_inputs, int with_data) {
  if (num_inputs != (size_t)info->num_inputs)
    return fail(NIBBLE_INVALID_ARGUMENT, "model '%s' has %lld inputs, not %zu",
                info->name, (long long)info->num_inputs, num_inputs);
  if (num_inputs > 0 && !inputs)
    return fail(NIBBLE_INVALID_ARGUMENT, "the inputs are NULL");
  for (int64_t i = 0; i < info->num_inputs; ++i) {
    nibble_status status = check_input(info, i, inputs, with_data);
    if (status != NIBBLE_OK)
      return status;
  }
  return NIBBLE_OK;
}

static nibble_status check_outputs(const nibble_model_info *info,
                                   const nibble_tensor *outputs,
                                   size_t num_outputs) {
  if (num_outputs != (size_t)info->num_outputs)
    return fail(NIBBLE_INVALID_ARGUMENT, "model '%s' has %lld outputs, not %zu",
                info->name, (long long)info->num_outputs, num_outputs);
  if (num_outputs > 0 && !outputs)
    return fail(NIBBLE_INVALID_ARGUMENT, "the outputs are NULL");
  return NIBBLE_OK;
}

nibble_status nibble_model_output_shapes(const nibble_model_info *info,
                                         const nibble_tensor *inputs,
                                         size_t num_inputs,
                                         nibble_tensor *outputs,
                                         size_t num_outputs) {
  nibble_status status = check_inputs(info, inputs, num_inputs, 0);
  if (status == NIBBLE_OK)
    status = check_outputs(info, outputs, num_outputs);
  if (status != NIBBLE_OK)
    return status;
  for (int64_t i = 0; i < info->num_outputs; ++i) {
    const nibble_value *value = &info->outputs[i];
    if (value->ndim > 0 && !outputs[i].shape)
      return fail(NIBBLE_INVALID_ARGUMENT,
                  "output '%s' has no place for its shape", value->name);
    outputs[i].ndim = value->ndim;
    outputs[i].dtype = value->dtype;
    for (int32_t axis = 0; axis < value->ndim; ++axis) {
      int64_t size = value->shape[axis];
      if (size < 0 && value->dimensions[axis])
        size = find_dimension(info, inputs, info->num_inputs,
                              value->dimensions[axis]);
      outputs[i].shape[axis] = size;
    }
  }
  return NIBBLE_OK;
}

//===----------------------------------------------------------------------===//
// Running
//===----------------------------------------------------------------------===//

/* What one call needs beside the model: descriptors and their addresses. */
typedef struct {
  struct nibble_run run;
  int64_t *results, *inputs;
  void **pointers, **arguments;
} call_state;

static size_t count_words(const nibble_value *values, int64_t count) {
  size_t words = 0;
  for (int64_t i = 0; i < count; ++i)
    words += descriptor_words(values[i].ndim);
  return words;
}

/* One block of memory; the caller frees it. */
static call_state *make_state(const nibble_model *model) {
  const nibble_model_info *info = model->info;
  size_t results = count_words(info->outputs, info->num_outputs);
  size_t inputs = count_words(info->inputs, info->num_inputs);
  size_t count = 1 + (size_t)info->num_inputs + (size_t)model->row->num_weights;
  void *memory;
  if (posix_memalign(&memory, 64,
                     sizeof(call_state) + 8 * (results + inputs + 2 * count)))
    return NULL;
  call_state *state = memory;
  state->results = (int64_t *)(state + 1);
  state->inputs = state->results + results;
  state->pointers = (void **)(state->inputs + inputs);
  state->arguments = state->pointers + count;
  return state;
}

/* Code takes the address of each pointer to a descriptor. */
static void fill_arguments(call_state *state, const nibble_model *model,
                           const nibble_tensor *inputs) {
  const nibble_model_info *info = model->info;
  size_t count = 0;
  if (info->num_outputs > 0)
    state->pointers[count++] = state->results;
  int64_t *next = state->inputs;
  for (int64_t i = 0; i < info->num_inputs; ++i) {
    const nibble_tensor *input = &inputs[i];
    fill_descriptor(next, (const char *)input->data + input->byte_offset,
                    input->ndim, input->shape);
    state->pointers[count++] = next;
    next += descriptor_words(input->ndim);
  }
  next = model->descriptors;
  for (int64_t i = 0; i < model->row->num_weights; ++i) {
    state->pointers[count++] = next;
    next += descriptor_words(model->row->weights[i].ndim);
  }
  for (size_t i = 0; i < count; ++i)
    state->arguments[i] = &state->pointers[i];
}

/* A result as the code left it. */
typedef struct {
  /* The start of its buffer, and its first element. */
  void *buffer;
  const char *data;
  const int64_t *shape;
  size_t bytes;
} call_result;

static call_result read_result(const nibble_value *value,
                               const int64_t *words) {
  call_result result;
  memcpy(&result.buffer, words, sizeof(void *));
  memcpy(&result.data, words + 1, sizeof(void *));
  result.data += words[2] * ((value->dtype.bits + 7) / 8);
  result.shape = words + 3;
  result.bytes = 0;
  count_bytes(value->dtype, result.shape, value->ndim, &result.bytes);
  return result;
}

/* The place that the caller gave for an output has to be what the run made. */
static nibble_status check_place(const nibble_value *value,
                                 const call_result *result,
                                 const nibble_tensor *output) {
  char actual[256], expected[256];
  nibble_status status = check_type("output", value, output);
  if (status == NIBBLE_OK)
    status = check_memory("output", value, output, result->bytes);
  if (status != NIBBLE_OK)
    return status;
  if (memcmp(output->shape, result->shape,
             sizeof(int64_t) * (size_t)value->ndim) != 0)
    return fail(
        NIBBLE_INVALID_ARGUMENT,
        "output '%s' is of shape %s, and the place for it of shape %s",
        value->name,
        print_shape(expected, sizeof(expected), result->shape, value->ndim),
        print_shape(actual, sizeof(actual), output->shape, output->ndim));
  return NIBBLE_OK;
}

/* Makes the caller the owner of a result, and of its shape where there is no
 * place for that. */
static nibble_status hand_over(const nibble_value *value,
                               const call_result *result, int shared,
                               nibble_tensor *output) {
  size_t shape_bytes = sizeof(int64_t) * (size_t)value->ndim;
  void *buffer = result->buffer;
  int64_t *shape = output->shape ? output->shape : malloc(shape_bytes + 1);
  if (shape && (shared || result->data != buffer)) {
    buffer = nibble_run_allocate(result->bytes);
    if (buffer)
      memcpy(buffer, result->data, result->bytes);
  } else if (shape) {
    nibble_run_take(buffer);
  }
  if (!shape || !buffer) {
    if (shape != output->shape)
      free(shape);
    return fail_memory();
  }
  memcpy(shape, result->shape, shape_bytes);
  output->data = buffer;
  output->device.type = DEVICE_CPU;
  output->device.id = 0;
  output->ndim = value->ndim;
  output->dtype = value->dtype;
  output->shape = shape;
  output->strides = NULL;
  output->byte_offset = 0;
  return NIBBLE_OK;
}

/* True where an earlier result is in the same buffer. */
static int is_shared(const nibble_model_info *info, const int64_t *words,
                     int64_t index, const void *buffer) {
  for (int64_t i = 0; i < index; ++i) {
    if (read_result(&info->outputs[i], words).buffer == buffer)
      return 1;
    words += descriptor_words(info->outputs[i].ndim);
  }
  return 0;
}

static nibble_status give_results(const nibble_model_info *info,
                                  const int64_t *results,
                                  nibble_tensor *outputs) {
  nibble_status status = NIBBLE_OK;
  const int64_t *words = results;
  for (int64_t i = 0; i < info->num_outputs && status == NIBBLE_OK; ++i) {
    call_result result = read_result(&info->outputs[i], words);
    if (outputs[i].data)
      status = check_place(&info->outputs[i], &result, &outputs[i]);
    words += descriptor_words(info->outputs[i].ndim);
  }
  if (status != NIBBLE_OK)
    return status;
  words = results;
  for (int64_t i = 0; i < info->num_outputs; ++i) {
    call_result result = read_result(&info->outputs[i], words);
    if (outputs[i].data) {
      if (result.bytes > 0)
        memcpy((char *)outputs[i].data + outputs[i].byte_offset, result.data,
               result.bytes);
    } else {
      int shared = is_shared(info, results, i, result.buffer);
      status = hand_over(&info->outputs[i], &result, shared, &outputs[i]);
      if (status != NIBBLE_OK)
        return status;
    }
    words += descriptor_words(info->outputs[i].ndim);
  }
  return NIBBLE_OK;
}

/* Runs the code, on the model's GPU where it has one. */
static nibble_status call(call_state *state, const nibble_model *model,
                          const volatile int *stop) {
  const nibble_device_interface *device = model->info->device;
  if (device) {
    const char *message;
    nibble_status status = device->begin(model->device, &message);
    if (status != NIBBLE_OK)
      return fail(status, "%s", message);
  }
  int code = nibble_run_call(&state->run, model->row->entry, state->arguments,
                             stop, model->pool);
  if (device)
    device->end(model->device);
  return code == NIBBLE_RUN_OK
             ? NIBBLE_OK
             : fail((nibble_status)code, "%s", state->run.message);
}

nibble_status nibble_model_run(const nibble_model *model,
                               const nibble_tensor *inputs, size_t num_inputs,
                               nibble_tensor *outputs, size_t num_outputs,
                               const volatile int *stop) {
  if (!model)
    return fail(NIBBLE_INVALID_ARGUMENT, "the model is NULL");
  nibble_status status = check_inputs(model->info, inputs, num_inputs, 1);
  if (status == NIBBLE_OK)
    status = check_outputs(model->info, outputs, num_outputs);
  if (status != NIBBLE_OK)
    return status;
  call_state *state = make_state(model);
  if (!state)
    return fail_memory();
  fill_arguments(state, model, inputs);
  status = call(state, model, stop);
  if (status == NIBBLE_OK)
    status = give_results(model->info, state->results, outputs);
  nibble_run_free(&state->run);
  free(state);
  return status;
}

void nibble_model_release(nibble_tensor *outputs, size_t num_outputs) {
  for (size_t i = 0; outputs && i < num_outputs; ++i) {
    _mlir_memref_to_llvm_free(outputs[i].data);
    free(outputs[i].shape);
    outputs[i].data = NULL;
    outputs[i].shape = NULL;
  }
}

/* Calls a compiled model by its typed entry point and by tensors; C and C++. */
#include "net.h"

#include <stdio.h>
#include <stdlib.h>

static void check(nibble_status status) {
  if (status == NIBBLE_OK)
    return;
  fprintf(stderr, "error %d: %s\n", (int)status, net_last_error());
  exit(1);
}

int main(int argc, char **argv) {
  const float x[6] = {1, 2, 3, 4, 5, 6};
  const int64_t x_shape[2] = {2, 3}, picks[3] = {1, 0, 1}, picks_shape[1] = {3};
  int64_t y_shape[2], chosen_shape[2];
  float *y, *chosen, place[8];
  net_model *model;
  nibble_tensor inputs[2], outputs[2];
  size_t count;
  int i;

  check(net_create(argc > 1 ? argv[1] : NULL, &model));
  check(net_call(model, x, x_shape, picks, picks_shape, &y, y_shape, &chosen,
                 chosen_shape));
  printf("y %dx%d chosen %dx%d\n", (int)y_shape[0], (int)y_shape[1],
         (int)chosen_shape[0], (int)chosen_shape[1]);

  /* The same into a place of the caller's. */
  memset(inputs, 0, sizeof(inputs));
  memset(outputs, 0, sizeof(outputs));
  for (i = 0; i < 2; ++i) {
    inputs[i].device.type = outputs[i].device.type = 1;
    inputs[i].dtype = net_inputs(&count)[i].dtype;
    outputs[i].dtype = net_outputs(&count)[i].dtype;
    inputs[i].ndim = net_inputs(NULL)[i].ndim;
  }
  inputs[0].data = (void *)x;
  inputs[0].shape = (int64_t *)x_shape;
  inputs[1].data = (void *)picks;
  inputs[1].shape = (int64_t *)picks_shape;
  outputs[0].data = place;
  outputs[0].ndim = 2;
  outputs[0].shape = y_shape;
  check(net_run(model, inputs, 2, outputs, 2));
  if (memcmp(place, y, 8 * sizeof(float)) != 0 ||
      memcmp(outputs[1].data, chosen, 12 * sizeof(float)) != 0)
    return 2;
  net_release(outputs + 1, 1);

  for (i = 0; i < 8; ++i)
    printf("%g ", y[i]);
  for (i = 0; i < 12; ++i)
    printf("%g ", chosen[i]);
  printf("\n");

  /* An error leaks nothing. */
  inputs[0].dtype.bits = 64;
  if (net_run(model, inputs, 2, outputs, 2) != NIBBLE_INVALID_ARGUMENT)
    return 3;
  printf("%s\n", net_last_error());
  net_free(y);
  net_free(chosen);
  net_destroy(model);
  net_destroy(NULL);
  return 0;
}

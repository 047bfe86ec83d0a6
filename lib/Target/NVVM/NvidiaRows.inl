// The NVIDIA GPUs that code is emitted for.
//   NIBBLE_NVIDIA(name, chip, PTX version, bytes of shared memory of a block,
//                 kernels may overlap, wgmma)
// The version of PTX is the oldest that knows the chip and what kernels use, so
// that older drivers load it. Code for sm_80 runs on every later chip, code for
// sm_90a on that chip alone.

NIBBLE_NVIDIA("nvidia-sm80", "sm_80", "+ptx70", 166912, false, false)
NIBBLE_NVIDIA("nvidia-sm86", "sm_86", "+ptx71", 101376, false, false)
NIBBLE_NVIDIA("nvidia-sm89", "sm_89", "+ptx78", 101376, false, false)
NIBBLE_NVIDIA("nvidia-sm90", "sm_90", "+ptx78", 232448, true, false)
NIBBLE_NVIDIA("nvidia-sm90a", "sm_90a", "+ptx80", 232448, true, true)

#undef NIBBLE_NVIDIA

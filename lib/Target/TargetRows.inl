// The instruction sets that code is emitted for.
//   NIBBLE_TARGET(name, triple, cpu, features, vector bits, dot step, vector registers)
// Of one architecture, the row that can do more comes later. A row lists every
// feature beyond its baseline by itself: a machine that has them all can run it.

#define NIBBLE_X86 "x86_64-unknown-linux-gnu"
#define NIBBLE_ARM "aarch64-unknown-linux-gnu"
#define NIBBLE_X86_V3                                                          \
  "+cx16,+sahf,+popcnt,+sse4.2,+avx2,+bmi,+bmi2,+f16c,+fma,+lzcnt,+movbe"
// LLVM prefers half registers on this processor unless told.
#define NIBBLE_X86_V4                                                          \
  NIBBLE_X86_V3                                                                \
  ",+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl,-prefer-256-bit"

NIBBLE_TARGET("x86-64", NIBBLE_X86, "x86-64", "", 128, None, 16)
NIBBLE_TARGET("x86-64-v3", NIBBLE_X86, "x86-64-v3", NIBBLE_X86_V3, 256,
              PairsOf16Bits, 16)
NIBBLE_TARGET("x86-64-v3+avxvnni", NIBBLE_X86, "x86-64-v3",
              NIBBLE_X86_V3 ",+avxvnni", 256, AvxVnni, 16)
NIBBLE_TARGET("x86-64-v4", NIBBLE_X86, "x86-64-v4", NIBBLE_X86_V4, 512,
              PairsOf16Bits, 32)
NIBBLE_TARGET("x86-64-v4+vnni", NIBBLE_X86, "x86-64-v4",
              NIBBLE_X86_V4 ",+avx512vnni", 512, Avx512Vnni, 32)
NIBBLE_TARGET("x86-64-v4+vnni+bf16", NIBBLE_X86, "x86-64-v4",
              NIBBLE_X86_V4 ",+avx512vnni,+avx512bf16", 512, Avx512Vnni, 32)
NIBBLE_TARGET("aarch64", NIBBLE_ARM, "generic", "+neon", 128, None, 32)
NIBBLE_TARGET("aarch64+dotprod", NIBBLE_ARM, "generic", "+neon,+dotprod", 128,
              ArmDot, 32)
NIBBLE_TARGET("aarch64+i8mm", NIBBLE_ARM, "generic", "+neon,+dotprod,+i8mm",
              128, ArmMatrix, 32)

#undef NIBBLE_X86
#undef NIBBLE_ARM
#undef NIBBLE_X86_V3
#undef NIBBLE_X86_V4
#undef NIBBLE_TARGET

// The features of processors that code may be emitted for, as LLVM names them,
// and where the processor says that it has one.
//   NIBBLE_X86_FEATURE(name, bit in nibble_row, cpuid leaf, subleaf, register, bit)
//   NIBBLE_ARM_FEATURE(name, bit in nibble_row, auxiliary vector entry, bit)
// Registers: 0 eax, 1 ebx, 2 ecx, 3 edx. Entries: 16 AT_HWCAP, 26 AT_HWCAP2.

#ifndef NIBBLE_X86_FEATURE
#define NIBBLE_X86_FEATURE(name, bit, leaf, subleaf, reg, position)
#endif
#ifndef NIBBLE_ARM_FEATURE
#define NIBBLE_ARM_FEATURE(name, bit, entry, position)
#endif

NIBBLE_X86_FEATURE("cx16", 0, 1, 0, 2, 13)
NIBBLE_X86_FEATURE("sahf", 1, 0x80000001, 0, 2, 0)
NIBBLE_X86_FEATURE("popcnt", 2, 1, 0, 2, 23)
NIBBLE_X86_FEATURE("sse4.2", 3, 1, 0, 2, 20)
NIBBLE_X86_FEATURE("avx2", 4, 7, 0, 1, 5)
NIBBLE_X86_FEATURE("bmi", 5, 7, 0, 1, 3)
NIBBLE_X86_FEATURE("bmi2", 6, 7, 0, 1, 8)
NIBBLE_X86_FEATURE("f16c", 7, 1, 0, 2, 29)
NIBBLE_X86_FEATURE("fma", 8, 1, 0, 2, 12)
NIBBLE_X86_FEATURE("lzcnt", 9, 0x80000001, 0, 2, 5)
NIBBLE_X86_FEATURE("movbe", 10, 1, 0, 2, 22)
NIBBLE_X86_FEATURE("avx512f", 11, 7, 0, 1, 16)
NIBBLE_X86_FEATURE("avx512bw", 12, 7, 0, 1, 30)
NIBBLE_X86_FEATURE("avx512cd", 13, 7, 0, 1, 28)
NIBBLE_X86_FEATURE("avx512dq", 14, 7, 0, 1, 17)
NIBBLE_X86_FEATURE("avx512vl", 15, 7, 0, 1, 31)
NIBBLE_X86_FEATURE("avxvnni", 16, 7, 1, 0, 4)
NIBBLE_X86_FEATURE("avx512vnni", 17, 7, 0, 2, 11)
NIBBLE_X86_FEATURE("avx512bf16", 18, 7, 1, 0, 5)

NIBBLE_ARM_FEATURE("neon", 0, 16, 1)
NIBBLE_ARM_FEATURE("dotprod", 1, 16, 20)
NIBBLE_ARM_FEATURE("i8mm", 2, 26, 13)

#undef NIBBLE_X86_FEATURE
#undef NIBBLE_ARM_FEATURE

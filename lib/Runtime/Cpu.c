//===- Cpu.c - What this machine can run ----------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "Internal.h"
#include "Libc.h"

#if defined(__x86_64__)

static void read_cpuid(unsigned leaf, unsigned subleaf, unsigned words[4]) {
  __asm__ volatile("cpuid"
                   : "=a"(words[0]), "=b"(words[1]), "=c"(words[2]),
                     "=d"(words[3])
                   : "a"(leaf), "c"(subleaf));
}

/* The registers that the operating system saves: XCR0. */
static unsigned read_saved_state(void) {
  unsigned words[4], low, high;
  read_cpuid(1, 0, words);
  if (!(words[2] & (1u << 27)))
    return 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

static int has_feature(unsigned leaf, unsigned subleaf, unsigned reg,
                       unsigned position) {
  unsigned words[4];
  read_cpuid(leaf & 0x80000000u, 0, words);
  if (leaf > words[0])
    return 0;
  if (subleaf > 0) {
    read_cpuid(leaf, 0, words);
    if (subleaf > words[0])
      return 0;
  }
  read_cpuid(leaf, subleaf, words);
  return words[reg] >> position & 1;
}

uint64_t nibble_host_features(void) {
  /* 256-bit registers need bits 1 and 2, 512-bit ones 5 to 7 too. */
  unsigned state = read_saved_state();
  uint64_t features = 0;
#define NIBBLE_X86_FEATURE(name, bit, leaf, subleaf, reg, position)            \
  if (has_feature(leaf, subleaf, reg, position) &&                             \
      (memcmp(name, "avx", 3) != 0 || (state & 0x06) == 0x06) &&               \
      (memcmp(name, "avx512", 6) != 0 || (state & 0xe6) == 0xe6))              \
    features |= (uint64_t)1 << bit;
#include "nibble/Runtime/CpuFeatures.inl"
  return features;
}

/* Measured with products of one to four rows: 15 to 25 % faster on Intel's
 * Sapphire Rapids, 15 to 45 % slower on AMD's Zen 4. */
static int reads_ahead(void) {
  unsigned words[4];
  read_cpuid(0, 0, words);
  return memcmp(&words[1], "Genu", 4) == 0 &&
         memcmp(&words[3], "ineI", 4) == 0 && memcmp(&words[2], "ntel", 4) == 0;
}

int64_t nibble_runtime_reads_ahead(void) {
  /* 0 until it is known; cpuid takes long on virtual machines. */
  static int known;
  int value = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (value == 0) {
    value = reads_ahead() ? 2 : 1;
    __atomic_store_n(&known, value, __ATOMIC_RELAXED);
  }
  return value - 1;
}

#elif defined(__aarch64__)

int64_t nibble_runtime_reads_ahead(void) { return 0; }

uint64_t nibble_host_features(void) {
  uint64_t features = 0;
#define NIBBLE_ARM_FEATURE(name, bit, entry, position)                         \
  if (getauxval(entry) >> position & 1)                                        \
    features |= (uint64_t)1 << bit;
#include "nibble/Runtime/CpuFeatures.inl"
  return features;
}

#else
#error "no row of TargetRows.inl is for this architecture"
#endif

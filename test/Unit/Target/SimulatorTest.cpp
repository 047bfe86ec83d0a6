//===- SimulatorTest.cpp - GPU operations and mistakes --------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//
//
// What each operation of the simulator's table does, by the formulas of the PTX
// ISA, and kernels with a mistake of which the finding is expected.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/NVVM/Simulator.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/AsmParser/Parser.h"
#include "llvm/IR/LLVMContext.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/SourceMgr.h"
#include "gtest/gtest.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <set>

using namespace nibble;
using llvm::formatv;

//===----------------------------------------------------------------------===//
// Kernels from text
//===----------------------------------------------------------------------===//

/// @k(in, out), with the thread's index, and `shared`.
static std::string makeKernel(const std::string &body) {
  return "@shared = external addrspace(3) global [0 x i8], align 1024\n"
         "define ptx_kernel void @k(ptr addrspace(1) %in, ptr addrspace(1) "
         "%out) {\n"
         "  %thread = call i32 @llvm.nvvm.read.ptx.sreg.tid.x()\n"
         "  %index = zext i32 %thread to i64\n" +
         body + "\n}\n";
}

static std::unique_ptr<SimulatedProgram> load(const std::string &text,
                                              bool checks) {
  auto context = std::make_unique<llvm::LLVMContext>();
  llvm::SMDiagnostic diagnostic;
  auto module = llvm::parseAssemblyString(text, diagnostic, *context);
  if (!module) {
    ADD_FAILURE() << diagnostic.getMessage().str() << " in line "
                  << diagnostic.getLineNo() << " of\n"
                  << text;
    return nullptr;
  }
  auto program =
      SimulatedProgram::load(std::move(module), std::move(context), checks);
  if (program)
    return std::move(*program);
  ADD_FAILURE() << llvm::toString(program.takeError());
  return nullptr;
}

using Words = std::vector<uint64_t>;

static llvm::MutableArrayRef<uint8_t> bytesOf(Words &words) {
  return {reinterpret_cast<uint8_t *>(words.data()), words.size() * 8};
}

/// Runs @k on `in` and `out`.
static SimulationReport launch(SimulatedProgram &program, unsigned threads,
                               Words &in, Words &out, Schedule schedule = {},
                               uint64_t stepLimit = 1 << 20) {
  KernelLaunch launch;
  launch.kernel = "k";
  launch.block.x = threads;
  launch.sharedBytes = 64 << 10;
  launch.arguments = {reinterpret_cast<uint64_t>(in.data()),
                      reinterpret_cast<uint64_t>(out.data())};
  launch.buffers = {{"in", bytesOf(in)}, {"out", bytesOf(out)}};
  launch.schedule = schedule;
  launch.stepLimit = stepLimit;
  auto report = program.launch(launch);
  if (report)
    return *report;
  ADD_FAILURE() << llvm::toString(report.takeError());
  return {};
}

static std::string print(const SimulationReport &report) {
  std::string text;
  for (const Finding &finding : report.findings)
    text += formatv("{0}\n  at {1}\n  {2}\n", finding.what, finding.instruction,
                    finding.details)
                .str();
  return text;
}

//===----------------------------------------------------------------------===//
// One operation
//===----------------------------------------------------------------------===//

/// An operation, the types of what it takes and gives, and how many threads
/// call it. "shared" is an address of which the argument is the offset.
struct Call {
  std::string operation;
  std::vector<std::string> arguments, results;
  unsigned threads = 32;
  /// Bytes of `in`, behind the arguments, that each thread copies to shared
  /// memory first.
  unsigned sharedBytesPerThread = 0;
  /// Instructions before and behind the call.
  std::string before, after;
};

/// "{ float, float }", as inline assembly or an intrinsic has it.
static std::string printResults(const Call &call) {
  if (call.results.empty())
    return "void";
  if (call.results.size() == 1)
    return call.results.front();
  return "{ " + llvm::join(call.results, ", ") + " }";
}

static std::string printCallee(const Call &call) {
  if (llvm::StringRef(call.operation).starts_with("llvm."))
    return "@" + call.operation;
  std::string constraints;
  for (size_t i = 0; i < call.results.size(); ++i)
    constraints += "=f,";
  constraints += "r,r,r,r,l";
  for (size_t i = 0; i < call.results.size(); ++i)
    constraints += "," + std::to_string(i);
  return "asm sideeffect \"" + call.operation + "\", \"" + constraints + "\"";
}

/// A kernel that loads arguments from words [thread, argument] of %in, calls
/// the operation and stores the results to words [thread, result] of %out.
static std::string printCall(const Call &call) {
  std::string body;
  size_t count = call.arguments.size();
  if (call.sharedBytesPerThread != 0)
    body += formatv("  %first = mul i64 %index, {0}\n"
                    "  %behind = add i64 %first, {1}\n"
                    "  %from = getelementptr i8, ptr addrspace(1) %in, i64 "
                    "%behind\n"
                    "  %to = getelementptr i8, ptr addrspace(3) @shared, i64 "
                    "%first\n"
                    "  call void @llvm.memcpy.p3.p1.i64(ptr addrspace(3) %to, "
                    "ptr addrspace(1) %from, i64 {0}, i1 false)\n"
                    "  call void @llvm.nvvm.fence.proxy.async.shared_cta()\n"
                    "  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 "
                    "0)\n",
                    call.sharedBytesPerThread, call.threads * count * 8)
                .str();
  std::vector<std::string> values;
  for (size_t i = 0; i < count; ++i) {
    bool isShared = call.arguments[i] == "shared";
    std::string type = isShared ? "i64" : call.arguments[i];
    body += formatv("  %w{0} = mul i64 %index, {1}\n"
                    "  %v{0} = add i64 %w{0}, {0}\n"
                    "  %p{0} = getelementptr i64, ptr addrspace(1) %in, i64 "
                    "%v{0}\n"
                    "  %a{0} = load {2}, ptr addrspace(1) %p{0}, align 2\n",
                    i, count, type)
                .str();
    if (isShared) {
      body += formatv("  %s{0} = getelementptr i8, ptr addrspace(3) @shared, "
                      "i64 %a{0}\n",
                      i)
                  .str();
      values.push_back(formatv("ptr addrspace(3) %s{0}", i).str());
    } else {
      values.push_back(formatv("{0} %a{1}", type, i).str());
    }
  }
  body += call.before;
  if (!call.results.empty())
    body += "  %r = ";
  body += "call " + printResults(call) + " " + printCallee(call) + "(" +
          llvm::join(values, ", ") + ")\n" + call.after;
  for (size_t i = 0; i < call.results.size(); ++i) {
    std::string value = "%r";
    if (call.results.size() > 1) {
      body +=
          formatv("  %e{0} = extractvalue {1} %r, {0}\n", i, printResults(call))
              .str();
      value = formatv("%e{0}", i).str();
    }
    body += formatv("  %x{0} = mul i64 %index, {1}\n"
                    "  %y{0} = add i64 %x{0}, {0}\n"
                    "  %q{0} = getelementptr i64, ptr addrspace(1) %out, i64 "
                    "%y{0}\n"
                    "  store {2} {3}, ptr addrspace(1) %q{0}, align 2\n",
                    i, call.results.size(), call.results[i], value)
                .str();
  }
  return makeKernel(body + "  ret void");
}

/// The results, words [thread, result]; `in` has the arguments and behind them
/// shared memory. Plain and checked programs must agree.
static Words run(const Call &call, Words in) {
  Words results[2];
  for (bool checks : {false, true}) {
    auto program = load(printCall(call), checks);
    if (!program)
      return {};
    EXPECT_TRUE(llvm::is_contained(program->getOperations(), call.operation));
    Words &out = results[checks];
    out.assign(call.threads * std::max<size_t>(call.results.size(), 1), 0);
    SimulationReport report = launch(*program, call.threads, in, out);
    EXPECT_TRUE(report.isClean()) << print(report);
  }
  EXPECT_EQ(results[0], results[1]);
  return results[0];
}

//===----------------------------------------------------------------------===//
// Numbers
//===----------------------------------------------------------------------===//

/// Whole numbers from -20 to 20, exact in every format.
static int number(unsigned row, unsigned column) {
  return int((row * 7 + column * 13 + row * column * 5) % 41) - 20;
}

static uint16_t toHalf(float value) {
  auto half = static_cast<_Float16>(value);
  uint16_t bits;
  std::memcpy(&bits, &half, 2);
  return bits;
}
static uint16_t toBrainFloat(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits >> 16;
}
static uint64_t toWord(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
static float toFloat(uint64_t word) {
  auto bits = uint32_t(word);
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

//===----------------------------------------------------------------------===//
// Tensor cores
//===----------------------------------------------------------------------===//

/// The formulas are those of PTX ISA, "Matrix fragments for mma.m16n8k16 with
/// floating point type" and "Matrix fragments for mma.m16n8k32".
static void testMma(const std::string &name, bool isInteger,
                    const std::function<uint64_t(int)> &encode) {
  unsigned packed = isInteger ? 4 : 2, bits = 32 / packed, K = 8 * packed;
  Call call;
  call.operation = name;
  std::string input = isInteger || name.find("bf16") != std::string::npos
                          ? "i32"
                          : "<2 x half>";
  std::string sum = isInteger ? "i32" : "float";
  call.arguments.assign(6, input);
  call.arguments.insert(call.arguments.end(), 4, sum);
  call.results.assign(4, sum);
  Words in;
  for (unsigned lane = 0; lane < 32; ++lane) {
    unsigned group = lane >> 2, inGroup = lane % 4;
    uint64_t a[4] = {}, b[2] = {};
    for (unsigned i = 0; i < 4 * packed; ++i) {
      bool isUpper = i < packed || (i >= 2 * packed && i < 3 * packed);
      unsigned row = isUpper ? group : group + 8;
      unsigned column =
          inGroup * packed + i % packed + (i < 2 * packed ? 0 : 4 * packed);
      a[i / packed] |= encode(number(row, column)) << (i % packed * bits);
    }
    for (unsigned i = 0; i < 2 * packed; ++i) {
      unsigned row =
          inGroup * packed + i % packed + (i < packed ? 0 : 4 * packed);
      b[i / packed] |= encode(number(row + 50, group)) << (i % packed * bits);
    }
    in.insert(in.end(), a, a + 4);
    in.insert(in.end(), b, b + 2);
    for (unsigned i = 0; i < 4; ++i) {
      int value = number(group + (i < 2 ? 0 : 8), inGroup * 2 + (i & 1));
      in.push_back(isInteger ? uint32_t(value) : toWord(value));
    }
  }
  Words out = run(call, in);
  ASSERT_EQ(out.size(), 32u * 4);
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned i = 0; i < 4; ++i) {
      unsigned row = (lane >> 2) + (i < 2 ? 0 : 8);
      unsigned column = lane % 4 * 2 + (i & 1);
      int expected = number(row, column);
      for (unsigned k = 0; k < K; ++k)
        expected += number(row, k) * number(k + 50, column);
      uint64_t word = out[lane * 4 + i];
      EXPECT_EQ(isInteger ? int32_t(word) : int(toFloat(word)), expected)
          << "row " << row << ", column " << column;
    }
}

static void testHalfMma(const std::string &name) {
  testMma(name, false, [](int value) { return toHalf(value); });
}
static void testBrainFloatMma(const std::string &name) {
  testMma(name, false, [](int value) { return toBrainFloat(value); });
}
static void testByteMma(const std::string &name) {
  testMma(name, true, [](int value) { return uint8_t(value); });
}

/// PTX ISA, "ldmatrix".
static void testLdmatrix(const std::string &name) {
  unsigned count = name[name.find(".x") + 2] - '0';
  bool isTransposed = name.find("trans") != std::string::npos;
  Call call;
  call.operation = name;
  call.arguments = {"shared"};
  call.results.assign(count, "i32");
  call.sharedBytesPerThread = 32;
  Words in;
  // Rows are not in order: row i of matrix m lies at 16 · (5 · (8m + i) % 64).
  auto place = [](unsigned row) { return row * 5 % 64; };
  for (unsigned lane = 0; lane < 32; ++lane)
    in.push_back(place(lane) * 16);
  std::vector<uint16_t> shared(512);
  for (unsigned row = 0; row < 32; ++row)
    for (unsigned i = 0; i < 8; ++i)
      shared[place(row) * 8 + i] = row * 8 + i;
  in.resize(32 + 128);
  std::memcpy(&in[32], shared.data(), 1024);
  Words out = run(call, in);
  ASSERT_EQ(out.size(), 32u * count);
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned m = 0; m < count; ++m) {
      unsigned row = lane / 4, column = lane % 4 * 2;
      auto at = [&](unsigned r, unsigned c) { return m * 64 + r * 8 + c; };
      unsigned low = isTransposed ? at(column, row) : at(row, column);
      unsigned high = isTransposed ? at(column + 1, row) : at(row, column + 1);
      EXPECT_EQ(uint32_t(out[lane * count + m]), low | high << 16);
    }
}

static const char *productsBefore =
    "  call void @llvm.nvvm.wgmma.fence.sync.aligned()\n";
static const char *productsAfter =
    "  call void @llvm.nvvm.wgmma.commit_group.sync.aligned()\n"
    "  call void @llvm.nvvm.wgmma.wait_group.sync.aligned(i64 0)\n";

/// Rows of 64 inputs, "Swizzling modes", 128 bytes: bits 4 to 6 of an address
/// are combined with bits 7 to 9. Of a row, inputs 16 to 31 are read.
static Call makeWgmma(unsigned N, Words &in) {
  Call call;
  call.operation =
      formatv("wgmma.mma_async.sync.aligned.m64n{0}k16.f32.f16.f16 ", N).str();
  auto list = [](unsigned first, unsigned count) {
    std::vector<std::string> names;
    names.reserve(count);
    for (unsigned i = 0; i < count; ++i)
      names.push_back("$" + std::to_string(first + i));
    return "{" + llvm::join(names, ",") + "}";
  };
  unsigned sums = N / 2;
  call.operation += list(0, sums) + "," + list(sums, 4) + ",$" +
                    std::to_string(sums + 4) + ",1,1,1,0;";
  call.threads = 128;
  call.arguments.assign(4, "i32");
  call.arguments.push_back("i64");
  call.arguments.insert(call.arguments.end(), sums, "float");
  call.results.assign(sums, "float");
  call.sharedBytesPerThread = N;
  call.before = productsBefore;
  call.after = productsAfter;
  uint64_t descriptor =
      (32 >> 4) | uint64_t(1) << 16 | uint64_t(64) << 32 | uint64_t(1) << 62;
  for (unsigned thread = 0; thread < 128; ++thread) {
    unsigned warp = thread / 32, lane = thread % 32;
    for (unsigned r = 0; r < 4; ++r) {
      uint64_t word = 0;
      for (unsigned i = 0; i < 2; ++i) {
        unsigned row = warp * 16 + lane / 4 + (r % 2 ? 8 : 0);
        unsigned column = lane % 4 * 2 + i + (r < 2 ? 0 : 8);
        word |= uint64_t(toHalf(number(row, column))) << (16 * i);
      }
      in.push_back(word);
    }
    in.push_back(descriptor);
    for (unsigned i = 0; i < sums; ++i)
      in.push_back(toWord(float(thread) + float(i)));
  }
  std::vector<uint16_t> shared(size_t(N) * 64);
  for (unsigned n = 0; n < N; ++n)
    for (unsigned k = 0; k < 64; ++k) {
      unsigned address = n * 128 + k * 2;
      shared[(address ^ (address >> 7 & 7) << 4) / 2] =
          toHalf(number(n + 100, k));
    }
  size_t first = in.size();
  in.resize(first + shared.size() / 4);
  std::memcpy(&in[first], shared.data(), shared.size() * 2);
  return call;
}

/// PTX ISA, "Register fragments for wgmma.mma_async.m64nNk16".
static void testWgmma(const std::string &name) {
  llvm::StringRef rest(name);
  unsigned N = 0;
  rest.consume_front("wgmma.mma_async.sync.aligned.m64n");
  ASSERT_FALSE(rest.consumeInteger(10, N));
  Words in;
  Call call = makeWgmma(N, in);
  ASSERT_EQ(call.operation, name);
  Words out = run(call, in);
  ASSERT_EQ(out.size(), 128u * N / 2);
  for (unsigned thread = 0; thread < 128; ++thread)
    for (unsigned i = 0; i < N / 2; ++i) {
      unsigned row = thread / 32 * 16 + thread % 32 / 4 + (i % 4 < 2 ? 0 : 8);
      unsigned column = i / 4 * 8 + thread % 4 * 2 + (i & 1);
      float expected = float(thread) + float(i);
      for (unsigned k = 0; k < 16; ++k)
        expected += float(number(row, k) * number(column + 100, k + 16));
      ASSERT_EQ(toFloat(out[size_t(thread) * N / 2 + i]), expected)
          << "row " << row << ", column " << column;
    }
}

/// Its fence, commit and wait are part of every product.
static void testWgmmaGroups(const std::string &name) {
  Words in;
  Call call = makeWgmma(8, in);
  auto program = load(printCall(call), true);
  ASSERT_TRUE(program);
  EXPECT_TRUE(llvm::is_contained(program->getOperations(), name));
  Words out(128 * 4);
  SimulationReport report = launch(*program, 128, in, out);
  EXPECT_TRUE(report.isClean()) << print(report);
}

//===----------------------------------------------------------------------===//
// Registers
//===----------------------------------------------------------------------===//

/// PTX ISA, "shfl.sync": over segments of 8 lanes.
static void testShuffle(const std::string &name) {
  bool isUp = name.find("up") != std::string::npos;
  Call call;
  call.operation = name;
  call.arguments = {"i32", "i32", "i32", "i32"};
  call.results = {"i32"};
  unsigned b = 3, segment = 24, clamp = isUp ? 0 : 31;
  Words in;
  for (unsigned lane = 0; lane < 32; ++lane)
    in.insert(in.end(), {0xffffffff, lane * lane, b, segment << 8 | clamp});
  Words out = run(call, in);
  ASSERT_EQ(out.size(), 32u);
  for (unsigned lane = 0; lane < 32; ++lane) {
    unsigned first = lane / 8 * 8, inSegment = lane % 8, source = lane;
    if (isUp)
      source = inSegment >= b ? lane - b : lane;
    else if (name.find("down") != std::string::npos)
      source = inSegment + b < 8 ? lane + b : lane;
    else if (name.find("bfly") != std::string::npos)
      source = lane ^ b;
    else
      source = first + b;
    EXPECT_EQ(out[lane], source * source) << "lane " << lane;
  }
}

/// PTX ISA, "prmt": a nibble picks a byte; with its high bit, the sign.
static void testPrmt(const std::string &name) {
  Call call;
  call.operation = name;
  call.arguments = {"i32", "i32", "i32"};
  call.results = {"i32"};
  call.threads = 1;
  // Bytes 0, 5 and 7, and the sign of byte 2.
  EXPECT_EQ(run(call, {0x83828180, 0x47464544, 0x7a50})[0], 0x47ff4580U);
}

/// Numbers that a product and a sum, each rounded, would get wrong.
static void testFma(const std::string &name) {
  bool isVector = name.find("v2") != std::string::npos;
  std::string type = isVector ? "<2 x half>" : "half";
  Call call;
  call.operation = name;
  call.arguments.assign(3, type);
  call.results = {type};
  call.threads = 1;
  // (1 + 2⁻¹⁰)² - 1 = 2⁻⁹ + 2⁻²⁰; rounding the product first gives 2⁻⁹ too, but
  // (2⁻¹¹ + 2⁻²¹)(1 - 2⁻¹⁰) + 1 + 2⁻¹⁰ is just less than half way up to 1 +
  // 2⁻⁹, and half way once it is rounded to f32.
  auto power = [](int exponent) { return std::ldexp(1.0F, exponent); };
  uint64_t a = toHalf(power(-11) + power(-21)), b = toHalf(1 - power(-10));
  uint64_t c = toHalf(1 + power(-10)), expected = c;
  if (isVector) {
    a |= uint64_t(toHalf(1 + power(-10))) << 16;
    b |= uint64_t(toHalf(1 + power(-10))) << 16;
    c |= uint64_t(toHalf(-1)) << 16;
    expected |= uint64_t(toHalf(power(-9))) << 16;
  }
  EXPECT_EQ(run(call, {a, b, c})[0], expected);
}

//===----------------------------------------------------------------------===//
// Memory and barriers
//===----------------------------------------------------------------------===//

/// Where a thread's word lies in %in, in shared memory and in %out, and that of
/// the thread beside it, `distance` away, in shared memory.
static std::string makePlaces(unsigned distance) {
  return formatv("  %mine = getelementptr i32, ptr addrspace(3) @shared, i64 "
                 "%index\n"
                 "  %other = xor i64 %index, {0}\n"
                 "  %theirs = getelementptr i32, ptr addrspace(3) @shared, i64 "
                 "%other\n"
                 "  %result = getelementptr i64, ptr addrspace(1) %out, i64 "
                 "%index\n",
                 distance)
      .str();
}
static const char *storeMine =
    "  store i32 %thread, ptr addrspace(3) %mine, align 4\n";
static const char *loadTheirs =
    "  %value = load i32, ptr addrspace(3) %theirs, align 4\n"
    "  store i32 %value, ptr addrspace(1) %result, align 8\n";

/// Threads tell one another their index, under several schedules.
static void testExchange(const std::string &name, const std::string &arguments,
                         unsigned distance) {
  std::string text =
      makeKernel(makePlaces(distance) + storeMine + "  call void @" + name +
                 arguments + "\n" + loadTheirs + "  ret void");
  constexpr unsigned threads = 64, schedules = 4;
  auto program = load(text, /*checks=*/true);
  ASSERT_TRUE(program);
  EXPECT_TRUE(llvm::is_contained(program->getOperations(), name));
  for (unsigned seed = 0; seed < schedules; ++seed) {
    Words in(1), out(threads);
    SimulationReport report = launch(*program, threads, in, out, {seed});
    EXPECT_TRUE(report.isClean()) << print(report);
    for (unsigned i = 0; i < threads; ++i)
      EXPECT_EQ(out[i], i ^ distance);
  }
}

static void testBarrierOfAll(const std::string &name) {
  testExchange(name, "(i32 0)", 33);
}
static void testBarrierOfSome(const std::string &name) {
  testExchange(name, "(i32 1, i32 64)", 33);
}
static void testWarpBarrier(const std::string &name) {
  testExchange(name, "(i32 -1)", 5);
}

/// Each thread copies 16 bytes, and reads them after the wait.
static std::string makeCopy(const std::string &copy, const std::string &wait) {
  return "  %offset = mul i64 %index, 16\n"
         "  %from = getelementptr i8, ptr addrspace(1) %in, i64 %offset\n"
         "  %to = getelementptr i8, ptr addrspace(3) @shared, i64 %offset\n"
         "  call void @llvm.nvvm.cp.async." +
         copy + "\n  call void @llvm.nvvm.cp.async." + wait +
         "\n"
         "  %loaded = load <2 x i64>, ptr addrspace(3) %to, align 16\n"
         "  %target = getelementptr i8, ptr addrspace(1) %out, i64 %offset\n"
         "  store <2 x i64> %loaded, ptr addrspace(1) %target, align 8\n"
         "  ret void";
}
static const std::string wholeCopy =
    "cg.shared.global.16(ptr addrspace(3) %to, ptr addrspace(1) %from)";
static const std::string partOfCopy =
    "cg.shared.global.16.s(ptr addrspace(3) %to, ptr addrspace(1) %from, i32 "
    "10)";
static const std::string waitForGroups =
    "commit.group()\n  call void @llvm.nvvm.cp.async.wait.group(i32 0)";

static void testCopy(const std::string &name) {
  bool isPart = llvm::StringRef(name).ends_with(".s");
  std::string wait = llvm::StringRef(name).ends_with("wait.all")
                         ? "wait.all()"
                         : waitForGroups;
  auto program =
      load(makeKernel(makeCopy(isPart ? partOfCopy : wholeCopy, wait)), true);
  ASSERT_TRUE(program);
  EXPECT_TRUE(llvm::is_contained(program->getOperations(), name));
  for (bool lateCopies : {false, true}) {
    Words in(64), out(64);
    for (unsigned i = 0; i < in.size(); ++i)
      in[i] = 0x0101010101010101 * (i + 1);
    SimulationReport report = launch(*program, 32, in, out, {0, lateCopies});
    EXPECT_TRUE(report.isClean()) << print(report);
    for (unsigned i = 0; i < in.size(); ++i)
      EXPECT_EQ(out[i], isPart && i % 2 == 1 ? in[i] & 0xffff : in[i]);
  }
}

/// What means nothing where one block runs after the other.
static void testNothing(const std::string &name) {
  Call call;
  call.operation = name;
  EXPECT_EQ(run(call, {})[0], 0U);
}

//===----------------------------------------------------------------------===//
// The table
//===----------------------------------------------------------------------===//

using TestFunction = void (*)(const std::string &);

static std::map<std::string, TestFunction> makeTests() {
  std::map<std::string, TestFunction> tests = {
      {"llvm.fma.f16", testFma},
      {"llvm.fma.v2f16", testFma},
      {"llvm.nvvm.bar.warp.sync", testWarpBarrier},
      {"llvm.nvvm.barrier.cta.sync.aligned.all", testBarrierOfAll},
      {"llvm.nvvm.barrier.cta.sync.aligned.count", testBarrierOfSome},
      {"llvm.nvvm.cp.async.cg.shared.global.16", testCopy},
      {"llvm.nvvm.cp.async.cg.shared.global.16.s", testCopy},
      {"llvm.nvvm.cp.async.commit.group", testCopy},
      {"llvm.nvvm.cp.async.wait.all", testCopy},
      {"llvm.nvvm.cp.async.wait.group", testCopy},
      {"llvm.nvvm.fence.proxy.async.shared_cta", testNothing},
      {"llvm.nvvm.griddepcontrol.launch.dependents", testNothing},
      {"llvm.nvvm.griddepcontrol.wait", testNothing},
      {"llvm.nvvm.membar.gl", testNothing},
      {"llvm.nvvm.mma.m16n8k16.row.col.bf16", testBrainFloatMma},
      {"llvm.nvvm.mma.m16n8k16.row.col.f32.f32", testHalfMma},
      {"llvm.nvvm.mma.m16n8k32.row.col.s8", testByteMma},
      {"llvm.nvvm.prmt", testPrmt},
      {"llvm.nvvm.shfl.sync.bfly.i32", testShuffle},
      {"llvm.nvvm.shfl.sync.down.i32", testShuffle},
      {"llvm.nvvm.shfl.sync.idx.i32", testShuffle},
      {"llvm.nvvm.shfl.sync.up.i32", testShuffle},
      {"llvm.nvvm.wgmma.commit_group.sync.aligned", testWgmmaGroups},
      {"llvm.nvvm.wgmma.fence.sync.aligned", testWgmmaGroups},
      {"llvm.nvvm.wgmma.wait_group.sync.aligned", testWgmmaGroups}};
  for (const char *form :
       {"x1", "x2", "x4", "x1.trans", "x2.trans", "x4.trans"})
    tests[formatv("llvm.nvvm.ldmatrix.sync.aligned.m8n8.{0}.b16.p3", form)
              .str()] = testLdmatrix;
  for (unsigned N = 8; N <= 256; N += 8) {
    Words in;
    tests[makeWgmma(N, in).operation] = testWgmma;
  }
  return tests;
}

TEST(Simulator, EveryOperationHasATest) {
  std::vector<std::string> tested;
  for (const auto &[name, test] : makeTests())
    tested.push_back(name);
  EXPECT_EQ(tested, getSimulatedOperations());
}

TEST(Simulator, OperationsDoWhatTheManualSays) {
  for (const auto &[name, test] : makeTests()) {
    SCOPED_TRACE(name);
    test(name);
  }
}

TEST(Simulator, UnknownOperationsAreErrors) {
  auto context = std::make_unique<llvm::LLVMContext>();
  llvm::SMDiagnostic diagnostic;
  auto module = llvm::parseAssemblyString(
      makeKernel("  %e = call float @llvm.nvvm.sin.approx.f(float 1.0)\n"
                 "  %x = call i32 asm \"lop3.b32 $0, $1, $1, $1, 0x1;\", "
                 "\"=r,r\"(i32 %thread)\n"
                 "  ret void"),
      diagnostic, *context);
  ASSERT_TRUE(module) << diagnostic.getMessage().str();
  auto program =
      SimulatedProgram::load(std::move(module), std::move(context), false);
  ASSERT_FALSE(program);
  EXPECT_EQ(llvm::toString(program.takeError()),
            "the simulator does not know\n"
            "  llvm.nvvm.sin.approx.f\n"
            "  lop3.b32 $0, $1, $1, $1, 0x1;");
}

TEST(Simulator, LaunchesAreVerified) {
  auto program = load(makeKernel("  ret void"), false);
  ASSERT_TRUE(program);
  auto launchWith = [&](const std::string &name, unsigned threads,
                        uint32_t shared, size_t arguments) {
    KernelLaunch launch;
    launch.kernel = name;
    launch.block.x = threads;
    launch.sharedBytes = shared;
    launch.arguments.resize(arguments);
    auto report = program->launch(launch);
    return report ? "" : llvm::toString(report.takeError());
  };
  EXPECT_EQ(launchWith("k", 1024, 256 << 10, 2), "");
  EXPECT_EQ(launchWith("q", 32, 0, 2), "no kernel 'q'; there are k");
  EXPECT_EQ(launchWith("k", 32, 0, 3), "k: 3 arguments; there are 2");
  EXPECT_EQ(launchWith("k", 1025, 0, 2),
            "k: 1025 threads of a block; there are 1024");
  EXPECT_EQ(launchWith("k", 32, 300000, 2),
            "k: 300000 bytes of shared memory; there are 262144");
}

//===----------------------------------------------------------------------===//
// Mistakes
//===----------------------------------------------------------------------===//

namespace {
/// A kernel with a mistake, and the finding that names it.
struct Mistake {
  std::string what, instruction, body;
  unsigned threads = 64;
};
} // namespace

static const char *barrier =
    "  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)\n";
static const char *end = "  ret void";

/// Code for the threads below `limit` alone.
static std::string makeBranch(unsigned limit, const std::string &then,
                              const std::string &otherwise) {
  return formatv("  %few = icmp ult i32 %thread, {0}\n"
                 "  br i1 %few, label %then, label %else\n"
                 "then:\n{1}  br label %join\n"
                 "else:\n{2}  br label %join\n"
                 "join:\n",
                 limit, then, otherwise)
      .str();
}

/// A product of which rows are written, with `fence` and `behind` around it.
static std::string makeProduct(const std::string &fence,
                               const std::string &behind) {
  Words in;
  Call call = makeWgmma(8, in);
  std::string inputs = "i32 0, i32 0, i32 0, i32 0, i64 4611686293305360384";
  std::string body = "  %first = mul i64 %index, 8\n"
                     "  %to = getelementptr i8, ptr addrspace(3) @shared, i64 "
                     "%first\n"
                     "  store i64 0, ptr addrspace(3) %to, align 8\n" +
                     fence + barrier + productsBefore +
                     "  %r = call { float, float, float, float } " +
                     printCallee(call) + "(" + inputs +
                     ", float 0.0, float 0.0, float 0.0, float 0.0)\n"
                     "  call void @llvm.nvvm.wgmma.commit_group.sync.aligned()"
                     "\n" +
                     behind + end;
  return body;
}

static std::vector<Mistake> makeMistakes() {
  std::string places = makePlaces(33);
  std::string early = makeCopy(wholeCopy, "commit.group()");
  std::string outside =
      "  %past = getelementptr i8, ptr addrspace(3) @shared, i64 65533\n"
      "  %x = load i32, ptr addrspace(3) %past, align 1\n" +
      std::string(end);
  std::string outsideGlobal =
      "  %past = getelementptr i64, ptr addrspace(1) %out, i64 256\n"
      "  store i64 1, ptr addrspace(1) %past, align 8\n" +
      std::string(end);
  std::string misaligned =
      "  %odd = getelementptr i8, ptr addrspace(1) %in, i64 4\n"
      "  %x = load i64, ptr addrspace(1) %odd, align 8\n" +
      std::string(end);
  std::string fence = "  call void @llvm.nvvm.fence.proxy.async.shared_cta()\n";
  std::string wait =
      "  call void @llvm.nvvm.wgmma.wait_group.sync.aligned(i64 0)\n";
  std::string overwrite = "  store i64 0, ptr addrspace(3) %to, align 8\n";
  return {
      {"read of shared memory that was never written", "%value = load",
       places + loadTheirs + end},
      {"race: read of what another thread writes", "%value = load",
       places + storeMine + loadTheirs + end},
      {"race: write over what another thread writes", "store i32",
       "  store i32 %thread, ptr addrspace(3) @shared, align 4\n" +
           std::string(end)},
      {"race: write over what another thread reads", "store i32 0",
       places + storeMine + barrier + loadTheirs +
           "  store i32 0, ptr addrspace(3) %mine, align 4\n" + end},
      {"read out of bounds of shared memory", "%x = load", outside},
      {"write out of bounds of global memory", "store i64 1", outsideGlobal},
      {"misaligned read", "%x = load", misaligned},
      {"read of shared memory that a copy is filling", "%loaded = load", early},
      {"copies that the thread did not wait for", "commit.group", early},
      {"misaligned cp.async", "cp.async.cg.shared.global.16",
       "  %from = getelementptr i8, ptr addrspace(1) %in, i64 8\n"
       "  call void @llvm.nvvm.cp.async.cg.shared.global.16(ptr addrspace(3) "
       "@shared, ptr addrspace(1) %from)\n" +
           std::string(end)},
      {"cp.async reads more bytes than it writes",
       "cp.async.cg.shared.global.16.s",
       "  call void @llvm.nvvm.cp.async.cg.shared.global.16.s(ptr "
       "addrspace(3) @shared, ptr addrspace(1) %in, i32 17)\n" +
           std::string(end)},
      // 32 of 64 threads at a barrier of which the others wait elsewhere.
      {"no thread can go on", "barrier.cta.sync.aligned.all(i32 0)",
       makeBranch(32, barrier,
                  "  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 "
                  "1)\n") +
           end},
      {"a warp waits for an aligned barrier at two places",
       "barrier.cta.sync.aligned.all", makeBranch(16, barrier, barrier) + end},
      {"no thread can go on", "bar.warp.sync",
       makeBranch(16, "  call void @llvm.nvvm.bar.warp.sync(i32 -1)\n", "") +
           end},
      {"the mask leaves out the thread itself", "bar.warp.sync",
       "  call void @llvm.nvvm.bar.warp.sync(i32 1)\n" + std::string(end)},
      {"not all threads of a warp or warpgroup are there", "ldmatrix",
       "  %x = call i32 @llvm.nvvm.ldmatrix.sync.aligned.m8n8.x1.b16.p3(ptr "
       "addrspace(3) @shared)\n" +
           std::string(end),
       16},
      {"barrier with different numbers of threads",
       "barrier.cta.sync.aligned.count",
       "  %few = icmp ult i32 %thread, 32\n"
       "  %count = select i1 %few, i32 64, i32 96\n"
       "  call void @llvm.nvvm.barrier.cta.sync.aligned.count(i32 1, i32 "
       "%count)\n" +
           std::string(end)},
      {"no barrier of 0 to 15, or no multiple of 32 threads",
       "barrier.cta.sync.aligned.all",
       "  call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 16)\n" +
           std::string(end)},
      {"shfl.sync reads a lane that takes no part", "shfl.sync.idx",
       makeBranch(16,
                  "  %x = call i32 @llvm.nvvm.shfl.sync.idx.i32(i32 65535, i32 "
                  "1, i32 20, i32 31)\n",
                  "") +
           end,
       32},
      {"loops without an end", "br label %loop",
       "  br label %loop\nloop:\n"
       "  %x = load volatile i32, ptr addrspace(1) %in, align 4\n"
       "  br label %loop"},
      {"wgmma reads what was written before no fence.proxy.async",
       "wgmma.mma_async", makeProduct("", wait), 128},
      {"write to shared memory that wgmma is reading", "store i64 0",
       makeProduct(fence, overwrite + wait), 128},
      {"products that the thread did not wait for", "wgmma.commit_group",
       makeProduct(fence, ""), 128},
  };
}

TEST(Simulator, MistakesAreFound) {
  for (const Mistake &mistake : makeMistakes()) {
    SCOPED_TRACE(mistake.what);
    auto program = load(makeKernel(mistake.body), /*checks=*/true);
    ASSERT_TRUE(program);
    Words in(256), out(256);
    SimulationReport report = launch(*program, mistake.threads, in, out);
    bool isFound = llvm::any_of(report.findings, [&](const Finding &finding) {
      return finding.what == mistake.what &&
             llvm::StringRef(finding.instruction).contains(mistake.instruction);
    });
    EXPECT_TRUE(isFound) << print(report);
  }
}

TEST(Simulator, FindingsSayWhoWaitsWhere) {
  auto program =
      load(makeKernel(makeBranch(16, barrier, "") +
                      "  call void @llvm.nvvm.bar.warp.sync(i32 -1)\n" + end),
           true);
  ASSERT_TRUE(program);
  Words in(1), out(1);
  SimulationReport report = launch(*program, 32, in, out);
  ASSERT_EQ(report.findings.size(), 1U);
  EXPECT_EQ(report.findings[0].details,
            "block 0, 0, 0; 16 threads (16 to 31) wait at @k: call void "
            "@llvm.nvvm.bar.warp.sync(i32 -1); 16 threads (0 to 15) wait for "
            "barrier 0 at @k: call void "
            "@llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)");
}

/// Without a barrier, results depend on who runs first.
TEST(Simulator, SchedulesDiffer) {
  auto program =
      load(makeKernel("  store i32 %thread, ptr addrspace(1) %out, align 8\n"
                      "  ret void"),
           /*checks=*/false);
  ASSERT_TRUE(program);
  std::set<uint64_t> results;
  for (uint32_t seed = 0; seed < 8; ++seed) {
    Words in(1), out(1);
    launch(*program, 64, in, out, {seed});
    results.insert(out[0]);
  }
  EXPECT_GT(results.size(), 2U);
}

//===----------------------------------------------------------------------===//
// Costs
//===----------------------------------------------------------------------===//

/// What it costs that lane i loads a word of `bytes` bytes at i · stride.
static AccessCost measure(const char *space, unsigned bytes, unsigned stride) {
  std::string base = space == std::string("shared") ? "ptr addrspace(3) @shared"
                                                    : "ptr addrspace(1) %in";
  std::string type = formatv("<{0} x i8>", bytes).str();
  std::string pointer = base.substr(0, base.find_last_of(' '));
  auto program = load(
      makeKernel(formatv("  %offset = mul i64 %index, {0}\n"
                         "  %place = getelementptr i8, {1}, i64 %offset\n"
                         "  %x = load volatile {2}, {3} %place, align {4}\n"
                         "  ret void",
                         stride, base, type, pointer, bytes)
                     .str()),
      /*checks=*/true);
  if (!program)
    return {};
  Words in(1024), out(1);
  SimulationReport report = launch(*program, 32, in, out);
  EXPECT_TRUE(report.isClean()) << print(report);
  EXPECT_EQ(report.costs.size(), 1U);
  return report.costs.empty() ? AccessCost() : report.costs[0];
}

TEST(Simulator, BankConflictsAreCounted) {
  struct {
    unsigned bytes, stride;
    uint64_t rounds, least;
  } cases[] = {{4, 4, 1, 1},     {4, 8, 2, 1},    {4, 128, 32, 1},
               {4, 132, 1, 1},   {4, 0, 1, 1},    {16, 16, 4, 4},
               {16, 128, 32, 4}, {16, 144, 4, 4}, {8, 8, 2, 2}};
  for (auto &[bytes, stride, rounds, least] : cases) {
    AccessCost cost = measure("shared", bytes, stride);
    EXPECT_TRUE(cost.isShared);
    EXPECT_EQ(cost.rounds, rounds) << bytes << " bytes every " << stride;
    EXPECT_EQ(cost.leastRounds, least) << bytes << " bytes every " << stride;
  }
}

TEST(Simulator, SectorsAreCounted) {
  struct {
    unsigned bytes, stride;
    uint64_t sectors, least;
  } cases[] = {{4, 4, 4, 4}, {4, 32, 32, 4}, {16, 16, 16, 16}, {4, 0, 1, 1}};
  for (auto &[bytes, stride, sectors, least] : cases) {
    AccessCost cost = measure("global", bytes, stride);
    EXPECT_FALSE(cost.isShared);
    EXPECT_EQ(cost.requests, 1U);
    EXPECT_EQ(cost.bytes, stride == 0 ? bytes : 32 * bytes);
    EXPECT_LE(cost.rounds, sectors + 1) << bytes << " bytes every " << stride;
    EXPECT_GE(cost.rounds, sectors) << bytes << " bytes every " << stride;
    EXPECT_EQ(cost.leastRounds, least) << bytes << " bytes every " << stride;
  }
}

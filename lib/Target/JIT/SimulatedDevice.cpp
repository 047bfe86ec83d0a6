//===- SimulatedDevice.cpp - A GPU for compiled models, simulated ---------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "SimulatedDevice.h"

#include "nibble/Runtime/Device.h"
#include "nibble/Runtime/Run.h"
#include "nibble/Target/NVVM/DeviceModule.h"

#include <cstring>
#include <utility>

using namespace nibble;
using llvm::Expected;

/// Of this thread's run.
static thread_local SimulatedDevice *current = nullptr;

SimulatedDevice::Scope::Scope(SimulatedDevice *device)
    : device(device), outer(std::exchange(current, device)) {
  if (device)
    device->inUse.lock();
}

SimulatedDevice::Scope::~Scope() {
  current = outer;
  if (!device)
    return;
  device->pending.clear();
  device->freed.clear();
  for (auto &[start, bytes] : device->buffers)
    device->memory.erase(start);
  device->buffers.clear();
  device->inUse.unlock();
}

Expected<std::unique_ptr<SimulatedDevice>>
SimulatedDevice::create(DeviceProgram program, const NvidiaRow &row) {
  auto context = std::make_unique<llvm::LLVMContext>();
  auto module = makeDeviceModule(*program.module, row, *context);
  if (!module)
    return module.takeError();
  auto loaded = SimulatedProgram::load(std::move(*module), std::move(context),
                                       /*checks=*/true);
  if (!loaded)
    return loaded.takeError();
  std::unique_ptr<SimulatedDevice> device(new SimulatedDevice());
  device->program = std::move(*loaded);
  device->kernels = std::move(program.kernels);
  device->products = std::move(program.products);
  return device;
}

void SimulatedDevice::addWeight(llvm::ArrayRef<char> bytes) {
  auto *start = reinterpret_cast<uint8_t *>(const_cast<char *>(bytes.data()));
  memory[reinterpret_cast<uint64_t>(start)] = {start, bytes.size()};
}

//===----------------------------------------------------------------------===//
// Memory
//===----------------------------------------------------------------------===//

/// Fresh memory holds NaN, or -1.
void *SimulatedDevice::allocate(uint64_t bytes) {
  constexpr uint64_t alignment = 256;
  std::vector<uint8_t> storage(bytes + alignment, 0xff);
  auto start =
      llvm::alignTo(reinterpret_cast<uint64_t>(storage.data()), alignment);
  uint8_t *data =
      storage.data() + (start - reinterpret_cast<uint64_t>(storage.data()));
  buffers[start] = std::move(storage);
  memory[start] = {data, bytes};
  return data;
}

bool SimulatedDevice::free(void *buffer) {
  auto start = reinterpret_cast<uint64_t>(buffer);
  if (!buffers.count(start))
    return false;
  freed.push_back(start);
  return true;
}

//===----------------------------------------------------------------------===//
// Launches
//===----------------------------------------------------------------------===//

void SimulatedDevice::launch(uint64_t kernel, uint64_t blocks, uint64_t threads,
                             llvm::ArrayRef<uint64_t> arguments) {
  KernelLaunch launch;
  launch.kernel = kernels[kernel];
  launch.grid.x = static_cast<uint32_t>(blocks);
  launch.block.x = static_cast<uint32_t>(threads);
  launch.arguments = arguments.vec();
  pending.push_back(std::move(launch));
}

/// As Device.c launches a product.
void SimulatedDevice::multiply(size_t format, int32_t M, int32_t N, int32_t K,
                               uint64_t x, int32_t xStride, uint64_t weight,
                               uint64_t y, int32_t yStride) {
  const ProductFormat &product = products[format];
  std::vector<nibble_gpu_kernel> candidates;
  candidates.reserve(product.kernels.size());
  for (const ProductKernel &kernel : product.kernels)
    candidates.push_back({kernel.name.c_str(), /*ptx=*/nullptr, kernel.maxRows,
                          kernel.outputs, kernel.rows, kernel.warpsAlongK,
                          kernel.threads, kernel.sharedBytes});
  nibble_gpu_kernels all = {};
  all.bits = product.bits;
  all.group = product.group;
  all.has_zeros = product.hasZeros;
  all.count = static_cast<int32_t>(candidates.size());
  all.kernels = candidates.data();
  // A small GPU, so that small products are split too.
  constexpr int32_t multiprocessors = 8;
  nibble_product_plan plan =
      nibble_plan_product(&all, multiprocessors, K, N, M);
  const ProductKernel &kernel = product.kernels[plan.kernel];
  uint64_t partials = 0, counters = 0;
  if (plan.splits > 1) {
    void *zeros = allocate(plan.counter_bytes);
    std::memset(zeros, 0, plan.counter_bytes);
    counters = reinterpret_cast<uint64_t>(zeros);
    partials = reinterpret_cast<uint64_t>(allocate(plan.partial_bytes));
  }
  KernelLaunch launch;
  launch.kernel = kernel.name;
  launch.grid = {uint32_t(plan.columns), uint32_t(plan.rows),
                 uint32_t(plan.splits)};
  launch.block.x = kernel.threads;
  launch.sharedBytes = kernel.sharedBytes;
  auto number = [](int32_t value) { return uint64_t(uint32_t(value)); };
  launch.arguments = {x,
                      weight,
                      weight + nibble_gpu_code_bytes(&all, K, N),
                      0,
                      y,
                      partials,
                      counters,
                      number(M),
                      number(N),
                      number(K),
                      number(xStride),
                      number(yStride),
                      number(plan.chunks)};
  pending.push_back(std::move(launch));
  for (uint64_t scratch : {partials, counters})
    if (scratch)
      freed.push_back(scratch);
}

/// A kernel may touch the buffers that its arguments point into.
SimulatedDevice::Failure SimulatedDevice::run(KernelLaunch &launch) {
  for (uint64_t argument : launch.arguments) {
    auto after = memory.upper_bound(argument);
    if (after == memory.begin())
      continue;
    auto [start, bytes] = *std::prev(after);
    if (argument - start < bytes.size())
      launch.buffers.push_back({"buffer", bytes});
  }
  auto report = program->launch(launch);
  if (!report) {
    failure = llvm::toString(report.takeError());
    return failure.c_str();
  }
  if (report->isClean())
    return nullptr;
  const Finding &finding = report->findings.front();
  failure = "the simulator found a mistake of Nibble: " + finding.what +
            " by " + finding.instruction + ", " + finding.details;
  return failure.c_str();
}

SimulatedDevice::Failure SimulatedDevice::synchronize() {
  Failure result = nullptr;
  for (KernelLaunch &launch : pending)
    if (!result)
      result = run(launch);
  pending.clear();
  for (uint64_t start : freed) {
    memory.erase(start);
    buffers.erase(start);
  }
  freed.clear();
  return result;
}

//===----------------------------------------------------------------------===//
// Called by the host's code
//===----------------------------------------------------------------------===//

// A failure leaves by a jump, past no object that has to be destroyed.

static void launchOn(int64_t kernel, int64_t blocks, int64_t threads,
                     const uint64_t *words, int64_t count) {
  if (blocks > 0)
    current->launch(kernel, blocks, threads,
                    llvm::ArrayRef(words, size_t(count)));
}

static void multiplyOn(int64_t format, int64_t M, int64_t N, int64_t K,
                       int64_t x, int64_t xStride, int64_t weight, int64_t y,
                       int64_t yStride) {
  if (M > 0)
    current->multiply(format, static_cast<int32_t>(M), static_cast<int32_t>(N),
                      static_cast<int32_t>(K), x, static_cast<int32_t>(xStride),
                      weight, y, static_cast<int32_t>(yStride));
}

static void synchronizeWith() {
  if (const char *failure = current->synchronize())
    nibble_runtime_fail(NIBBLE_RUN_CHECK_FAILED, failure);
}

/// Fills MLIR's descriptor of a memref<?xi8>.
static void allocateOn(intptr_t *descriptor, int64_t bytes) {
  auto start = reinterpret_cast<intptr_t>(current->allocate(bytes));
  const intptr_t words[] = {start, start, 0, bytes, 1};
  std::copy(std::begin(words), std::end(words), descriptor);
}

static void freeOn(void *buffer) {
  if (!current->free(buffer))
    _mlir_memref_to_llvm_free(buffer);
}

llvm::orc::SymbolMap
SimulatedDevice::getSymbols(llvm::orc::MangleAndInterner &interner) {
  llvm::orc::SymbolMap symbols;
  auto add = [&](llvm::StringRef name, auto *function) {
    symbols[interner(name)] = {llvm::orc::ExecutorAddr::fromPtr(function),
                               llvm::JITSymbolFlags::Exported};
  };
  add("nibble_device_launch", &launchOn);
  add("nibble_device_multiply", &multiplyOn);
  add("nibble_device_synchronize", &synchronizeWith);
  add("_mlir_ciface_nibble_device_allocate", &allocateOn);
  add("_mlir_memref_to_llvm_free", &freeOn);
  return symbols;
}

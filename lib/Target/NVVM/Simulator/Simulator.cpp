//===- Simulator.cpp - GPU kernels on a CPU -------------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/NVVM/Simulator.h"

#include "Machine.h"
#include "Retarget.h"

#include "llvm/ExecutionEngine/Orc/LLJIT.h"
#include "llvm/ExecutionEngine/Orc/ThreadSafeModule.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/TargetSelect.h"

using namespace nibble;
using namespace nibble::simulator;
using llvm::Error;
using llvm::Expected;
namespace orc = llvm::orc;

static Error makeError(const llvm::Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

struct SimulatedProgram::Implementation {
  Program program;
  Machine machine{program};
  std::unique_ptr<orc::LLJIT> compiler;
  std::vector<std::string> operations;
};

SimulatedProgram::SimulatedProgram()
    : implementation(std::make_unique<Implementation>()) {}
SimulatedProgram::~SimulatedProgram() = default;

/// Kernels are run a few times, so that code is generated quickly; a product
/// and an addition stay two operations.
static Expected<std::unique_ptr<orc::LLJIT>> createCompiler() {
  static const bool initialized = [] {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
    return true;
  }();
  (void)initialized;
  auto builder = orc::JITTargetMachineBuilder::detectHost();
  if (!builder)
    return builder.takeError();
  builder->setCodeGenOptLevel(llvm::CodeGenOptLevel::Less);
  builder->getOptions().AllowFPOpFusion = llvm::FPOpFusion::Strict;
  return orc::LLJITBuilder()
      .setJITTargetMachineBuilder(std::move(*builder))
      .create();
}

Expected<std::unique_ptr<SimulatedProgram>>
SimulatedProgram::load(std::unique_ptr<llvm::Module> module,
                       std::unique_ptr<llvm::LLVMContext> context,
                       bool checks) {
  llvm::Module &code = *module;
  orc::ThreadSafeModule owned(std::move(module), std::move(context));
  if (!hasFibers())
    return makeError("the simulator runs on x86-64 only");
  std::unique_ptr<SimulatedProgram> loaded(new SimulatedProgram());
  auto &[program, machine, compiler, operations] = *loaded->implementation;
  if (!machine.hasSharedMemory())
    return makeError("no memory for the simulator's shared memory");
  auto created = createCompiler();
  if (!created)
    return created.takeError();
  compiler = std::move(*created);
  program.checks = checks;
  if (Error error = retarget(code, compiler->getTargetTriple(),
                             compiler->getDataLayout(), machine, program))
    return error;
  if (Error error = compiler->addIRModule(std::move(owned)))
    return error;
  for (auto &[name, kernel] : program.kernels) {
    auto address = compiler->lookup(getEntryName(name));
    if (!address)
      return address.takeError();
    kernel.entry = address->toPtr<KernelEntry>();
  }
  operations.assign(program.operations.begin(), program.operations.end());
  return loaded;
}

llvm::ArrayRef<std::string> SimulatedProgram::getOperations() const {
  return implementation->operations;
}

Expected<SimulationReport>
SimulatedProgram::launch(const KernelLaunch &launch) {
  const Program &program = implementation->program;
  auto kernel = program.kernels.find(launch.kernel);
  if (kernel == program.kernels.end()) {
    std::string names;
    for (const auto &[name, other] : program.kernels)
      names += (names.empty() ? "" : ", ") + name;
    return makeError("no kernel '" + launch.kernel + "'; there are " + names);
  }
  auto refuse = [&](const char *what, uint64_t given, uint64_t wanted) {
    return makeError(llvm::formatv("{0}: {1} {2}; there are {3}", launch.kernel,
                                   given, what, wanted));
  };
  if (launch.arguments.size() != kernel->second.arguments)
    return refuse("arguments", launch.arguments.size(),
                  kernel->second.arguments);
  constexpr uint64_t maxThreads = 1024;
  uint64_t threads = launch.block.count();
  if (threads == 0 || threads > maxThreads)
    return refuse("threads of a block", threads, maxThreads);
  uint64_t shared = uint64_t(program.staticSharedBytes) + launch.sharedBytes;
  if (shared > kMaxSharedBytes)
    return refuse("bytes of shared memory", shared, kMaxSharedBytes);
  Machine &machine = implementation->machine;
  if (!machine.reserveThreads(threads))
    return makeError("no memory for the stacks of " + llvm::Twine(threads) +
                     " threads");
  return machine.run(launch);
}

//===- DeviceModule.cpp - GPU kernels as LLVM IR and as PTX ---------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/NVVM/DeviceModule.h"

#include "DeviceMath.h"

#include "nibble/Target/OptimizeModule.h"

#include "mlir/Conversion/ArithToLLVM/ArithToLLVM.h"
#include "mlir/Conversion/ControlFlowToLLVM/ControlFlowToLLVM.h"
#include "mlir/Conversion/MathToLLVM/MathToLLVM.h"
#include "mlir/Conversion/ReconcileUnrealizedCasts/ReconcileUnrealizedCasts.h"
#include "mlir/Conversion/SCFToControlFlow/SCFToControlFlow.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/ControlFlow/IR/ControlFlow.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Target/LLVMIR/Dialect/Builtin/BuiltinToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/LLVMIR/LLVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Dialect/NVVM/NVVMToLLVMIRTranslation.h"
#include "mlir/Target/LLVMIR/Export.h"
#include "mlir/Transforms/Passes.h"
#include "llvm/IR/LegacyPassManager.h"
#include "llvm/MC/TargetRegistry.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Target/TargetMachine.h"
#include "llvm/TargetParser/Triple.h"

using namespace mlir;
using namespace nibble;
using llvm::Error;
using llvm::Expected;

static Error makeError(const Twine &message) {
  return llvm::createStringError(llvm::inconvertibleErrorCode(), message);
}

//===----------------------------------------------------------------------===//
// LLVM IR
//===----------------------------------------------------------------------===//

void nibble::registerDeviceDialects(DialectRegistry &registry) {
  registry
      .insert<arith::ArithDialect, cf::ControlFlowDialect, LLVM::LLVMDialect,
              math::MathDialect, NVVM::NVVMDialect, scf::SCFDialect>();
  registerBuiltinDialectTranslation(registry);
  registerLLVMDialectTranslation(registry);
  registerNVVMDialectTranslation(registry);
}

static LogicalResult lowerToLLVMDialect(ModuleOp module) {
  if (failed(expandDeviceMath(module)))
    return failure();
  PassManager passes(module.getContext());
  passes.addPass(createCanonicalizerPass());
  passes.addPass(createCSEPass());
  passes.addPass(createSCFToControlFlowPass());
  passes.addPass(createConvertControlFlowToLLVMPass());
  passes.addPass(createConvertMathToLLVMPass());
  passes.addPass(createArithToLLVMConversionPass());
  passes.addPass(createReconcileUnrealizedCastsPass());
  return passes.run(module);
}

static Expected<std::unique_ptr<llvm::TargetMachine>>
createTargetMachine(const NvidiaRow &row) {
  LLVMInitializeNVPTXTargetInfo();
  LLVMInitializeNVPTXTarget();
  LLVMInitializeNVPTXTargetMC();
  LLVMInitializeNVPTXAsmPrinter();
  llvm::Triple triple("nvptx64-nvidia-cuda");
  std::string message;
  const llvm::Target *target =
      llvm::TargetRegistry::lookupTarget(triple, message);
  if (!target)
    return makeError(message);
  std::unique_ptr<llvm::TargetMachine> machine(target->createTargetMachine(
      triple, row.chip, row.features, llvm::TargetOptions(), std::nullopt,
      std::nullopt, llvm::CodeGenOptLevel::Aggressive));
  if (!machine)
    return makeError("LLVM has no code generator for " + row.chip);
  return machine;
}

Expected<std::unique_ptr<llvm::Module>>
nibble::makeDeviceModule(ModuleOp module, const NvidiaRow &row,
                         llvm::LLVMContext &context) {
  if (failed(lowerToLLVMDialect(module)))
    return makeError("the kernels cannot be lowered to LLVM");
  auto machine = createTargetMachine(row);
  if (!machine)
    return machine.takeError();
  std::unique_ptr<llvm::Module> device =
      translateModuleToLLVMIR(module, context, "kernels");
  if (!device)
    return makeError("the kernels cannot be translated to LLVM IR");
  device->setTargetTriple((*machine)->getTargetTriple());
  device->setDataLayout((*machine)->createDataLayout());
  optimizeModule(*device, **machine, llvm::OptimizationLevel::O3);
  return device;
}

//===----------------------------------------------------------------------===//
// PTX
//===----------------------------------------------------------------------===//

Expected<std::string> nibble::emitPtx(std::unique_ptr<llvm::Module> module,
                                      const NvidiaRow &row) {
  auto machine = createTargetMachine(row);
  if (!machine)
    return machine.takeError();
  llvm::SmallString<0> text;
  llvm::raw_svector_ostream stream(text);
  llvm::legacy::PassManager passes;
  if ((*machine)->addPassesToEmitFile(passes, stream, nullptr,
                                      llvm::CodeGenFileType::AssemblyFile))
    return makeError("LLVM cannot write PTX for " + row.chip);
  passes.run(*module);
  return text.str().str();
}

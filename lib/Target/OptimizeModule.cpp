//===- OptimizeModule.cpp - LLVM's optimizations --------------------------===//
//
// Part of the Nibble project.
//
//===----------------------------------------------------------------------===//

#include "nibble/Target/OptimizeModule.h"

#include "llvm/Analysis/CFG.h"
#include "llvm/IR/Module.h"
#include "llvm/Passes/PassBuilder.h"

void nibble::optimizeModule(llvm::Module &module, llvm::TargetMachine &machine,
                            llvm::OptimizationLevel level) {
  llvm::LoopAnalysisManager loops;
  llvm::FunctionAnalysisManager functions;
  llvm::CGSCCAnalysisManager callGraph;
  llvm::ModuleAnalysisManager modules;
  llvm::PassBuilder builder(&machine);
  builder.registerModuleAnalyses(modules);
  builder.registerCGSCCAnalyses(callGraph);
  builder.registerFunctionAnalyses(functions);
  builder.registerLoopAnalyses(loops);
  builder.crossRegisterProxies(loops, functions, callGraph, modules);
  builder.buildPerModuleDefaultPipeline(level).run(module, modules);
}

void nibble::hurryStraightCode(llvm::Module &module) {
  constexpr unsigned longFunction = 2000;
  for (llvm::Function &function : module) {
    if (function.getInstructionCount() < longFunction)
      continue;
    llvm::SmallVector<
        std::pair<const llvm::BasicBlock *, const llvm::BasicBlock *>>
        backEdges;
    llvm::FindFunctionBackedges(function, backEdges);
    if (!backEdges.empty())
      continue;
    function.removeFnAttr(llvm::Attribute::AlwaysInline);
    function.addFnAttr(llvm::Attribute::OptimizeNone);
    function.addFnAttr(llvm::Attribute::NoInline);
  }
}

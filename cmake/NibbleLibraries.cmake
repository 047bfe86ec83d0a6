# How every library, tool and generated header of Nibble is built: one place for
# flags, so that a folder's CMakeLists.txt only lists its files and dependencies.

find_program(NIBBLE_CCACHE ccache)
if(NIBBLE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${NIBBLE_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${NIBBLE_CCACHE})
endif()

# clang links with the lld of its own version where there is one.
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  string(REGEX MATCH "^[0-9]+" NIBBLE_CLANG_MAJOR ${CMAKE_CXX_COMPILER_VERSION})
  find_program(NIBBLE_LLD NAMES ld.lld-${NIBBLE_CLANG_MAJOR} ld.lld)
  if(NIBBLE_LLD)
    add_link_options(--ld-path=${NIBBLE_LLD})
  endif()
endif()

separate_arguments(NIBBLE_LLVM_DEFINITIONS NATIVE_COMMAND "${LLVM_DEFINITIONS}")

set(NIBBLE_WARNINGS -Wall -Wextra -Wno-unused-parameter)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  list(APPEND NIBBLE_WARNINGS -Wextra-semi -Wnon-virtual-dtor)
endif()
if(NIBBLE_WERROR)
  list(APPEND NIBBLE_WARNINGS -Werror)
endif()

# Flags common to all of Nibble's own code. FP contraction stays off: a fused
# multiply-add on one machine and not on another would change the emitted codes.
add_library(NibbleFlags INTERFACE)
target_compile_options(NibbleFlags INTERFACE
  $<BUILD_INTERFACE:${NIBBLE_WARNINGS};-ffp-contract=off>)
target_compile_features(NibbleFlags INTERFACE cxx_std_17)
if(NIBBLE_SANITIZE)
  target_compile_options(NibbleFlags INTERFACE $<BUILD_INTERFACE:-fsanitize=address,undefined;-fno-sanitize-recover=undefined;-fno-omit-frame-pointer>)
  target_link_options(NibbleFlags INTERFACE $<BUILD_INTERFACE:-fsanitize=address,undefined>)
  add_library(NibbleSanitizerOptions OBJECT ${CMAKE_CURRENT_LIST_DIR}/SanitizerOptions.cpp)
  target_link_libraries(NibbleFlags INTERFACE
    $<BUILD_INTERFACE:$<TARGET_OBJECTS:NibbleSanitizerOptions>>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    # libMLIR is not instrumented, so vptr checks see types they cannot know.
    target_compile_options(NibbleFlags INTERFACE $<BUILD_INTERFACE:-fno-sanitize=vptr>)
  endif()
endif()

# Flags of the code that uses MLIR; LLVM is built without exceptions.
add_library(NibbleMLIRFlags INTERFACE)
target_compile_options(NibbleMLIRFlags INTERFACE $<BUILD_INTERFACE:-fno-exceptions>)
if(NOT LLVM_ENABLE_ASSERTIONS)
  target_compile_options(NibbleMLIRFlags INTERFACE
    $<BUILD_INTERFACE:$<$<CONFIG:Debug>:SHELL:-include ${CMAKE_CURRENT_LIST_DIR}/InstalledStatistics.h>>)
endif()
target_compile_definitions(NibbleMLIRFlags INTERFACE ${NIBBLE_LLVM_DEFINITIONS})
target_include_directories(NibbleMLIRFlags SYSTEM INTERFACE
  ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})
# A program links libMLIR.so, which takes 80 MiB of memory and 30 ms only to
# start, or, if it sets NIBBLE_STATIC_MLIR, just the parts of MLIR that it needs.
set(NIBBLE_STATIC_MLIR_LIBRARIES
  MLIRBytecodeReader MLIRBytecodeWriter MLIRFuncDialect MLIRIR MLIRParser
  MLIRPass MLIRTransforms
  # What compiles models.
  MLIRAffineToStandard MLIRArithToLLVM MLIRArithTransforms MLIRBufferizationPipelines
  MLIRBufferizationToMemRef MLIRBufferizationTransforms MLIRBuiltinToLLVMIRTranslation
  MLIRControlFlowToLLVM MLIRControlFlowTransforms MLIRFuncToLLVM MLIRFuncTransforms
  MLIRIndexToLLVM MLIRLinalgTransforms MLIRLLVMIRTransforms MLIRLLVMToLLVMIRTranslation
  MLIRMathToLibm MLIRMathToLLVM MLIRNVVMDialect MLIRNVVMToLLVMIRTranslation MLIRMathTransforms MLIRMemRefToLLVM MLIRMemRefTransforms
  MLIROpenMPToLLVM MLIROpenMPToLLVMIRTranslation MLIRReconcileUnrealizedCasts
  MLIRSCFToControlFlow MLIRSCFToOpenMP MLIRSCFTransforms MLIRTargetLLVMIRExport
  MLIRTensorInferTypeOpInterfaceImpl MLIRTensorTransforms MLIRUBToLLVM
  MLIRVectorToLLVMPass MLIRVectorToSCF
  # As a target, MLIRExecutionEngine brings libMLIR.so.
  $<TARGET_FILE:MLIRExecutionEngine> $<TARGET_FILE:MLIRExecutionEngineUtils>)
set(NIBBLE_IS_STATIC $<BOOL:$<TARGET_PROPERTY:NIBBLE_STATIC_MLIR>>)
target_link_libraries(NibbleMLIRFlags INTERFACE NibbleFlags
  $<IF:${NIBBLE_IS_STATIC},${NIBBLE_STATIC_MLIR_LIBRARIES},MLIR>
  $<$<NOT:${NIBBLE_IS_STATIC}>:LLVM>)

set_property(GLOBAL PROPERTY NIBBLE_LIBRARIES NibbleFlags NibbleMLIRFlags)

# nibble_add_library(<name> <source>... [NO_MLIR] [DEPENDS <generated header target>...] [LINK <library>...])
function(nibble_add_library name)
  cmake_parse_arguments(ARG "NO_MLIR" "" "DEPENDS;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_UNPARSED_ARGUMENTS})
  add_library(Nibble::${name} ALIAS ${name})
  target_include_directories(${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>
    $<INSTALL_INTERFACE:include>)
  if(ARG_NO_MLIR)
    target_link_libraries(${name} PUBLIC NibbleFlags ${ARG_LINK})
  else()
    target_link_libraries(${name} PUBLIC NibbleMLIRFlags ${ARG_LINK})
  endif()
  if(ARG_DEPENDS)
    add_dependencies(${name} ${ARG_DEPENDS})
  endif()
  # A user of this library includes generated headers too.
  add_dependencies(${name} nibble-headers)
  set_property(GLOBAL APPEND PROPERTY NIBBLE_LIBRARIES ${name})
endfunction()

# nibble_add_tool(<name> <source>... [STATIC_MLIR] [LINK <library>...])
function(nibble_add_tool name)
  cmake_parse_arguments(ARG "STATIC_MLIR" "" "LINK" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  set_target_properties(${name} PROPERTIES NIBBLE_STATIC_MLIR ${ARG_STATIC_MLIR})
  target_link_libraries(${name} PRIVATE ${ARG_LINK})
  install(TARGETS ${name} RUNTIME DESTINATION bin)
endfunction()

# Every generated header hangs on this target.
add_custom_target(nibble-headers)

list(TRANSFORM MLIR_INCLUDE_DIRS PREPEND -I OUTPUT_VARIABLE NIBBLE_TABLEGEN_INCLUDES)

# nibble_tablegen(<file.td> <output> <mlir-tblgen flag>...) queues one output;
# nibble_tablegen_target(<name>) makes the target that builds what was queued.
macro(nibble_tablegen file output)
  set(LLVM_TARGET_DEFINITIONS ${file})
  mlir_tablegen(${output} ${ARGN}
    -I${PROJECT_SOURCE_DIR}/include ${NIBBLE_TABLEGEN_INCLUDES})
endmacro()
macro(nibble_tablegen_target name)
  add_public_tablegen_target(${name})
  add_dependencies(nibble-headers ${name})
endmacro()

# cmake --install, and find_package(Nibble) for those who build on it.
include(CMakePackageConfigHelpers)

get_property(nibble_libraries GLOBAL PROPERTY NIBBLE_LIBRARIES)
install(TARGETS ${nibble_libraries} EXPORT NibbleTargets ARCHIVE DESTINATION lib)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/nibble ${PROJECT_BINARY_DIR}/include/nibble
  DESTINATION include
  FILES_MATCHING PATTERN "*.h" PATTERN "*.td" PATTERN "*.inc"
  PATTERN "CMakeFiles" EXCLUDE)
install(EXPORT NibbleTargets NAMESPACE Nibble:: DESTINATION lib/cmake/nibble)

configure_package_config_file(
  ${PROJECT_SOURCE_DIR}/cmake/NibbleConfig.cmake.in
  ${PROJECT_BINARY_DIR}/NibbleConfig.cmake
  INSTALL_DESTINATION lib/cmake/nibble)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/NibbleConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/NibbleConfig.cmake
  ${PROJECT_BINARY_DIR}/NibbleConfigVersion.cmake
  DESTINATION lib/cmake/nibble)

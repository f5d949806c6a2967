# SPDX-License-Identifier: Apache-2.0
# What is installed: the libraries as a CMake package, their public headers, the program and the golden set.
# find_package(nvfp4 COMPONENTS ...) knows emulator, golden, models and c, and gpu where that was built (gpu/CMakeLists.txt
# installs its own).
include(CMakePackageConfigHelpers)
set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/nvfp4)

install(TARGETS nvfp4_emulator nvfp4_golden nvfp4_models nvfp4_c EXPORT nvfp4-targets)
install(EXPORT nvfp4-targets NAMESPACE nvfp4:: DESTINATION ${package_folder})
if(NVFP4_TOOLS)
  install(TARGETS nvfp4_program)
  if(NOT CMAKE_CROSSCOMPILING) # the program writes its own manual pages and completions
    set(share "\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}")
    install(CODE "
      message(STATUS \"Writing manual pages and completions to ${share}\")
      file(MAKE_DIRECTORY \"${share}/bash-completion/completions\" \"${share}/zsh/site-functions\" \"${share}/fish/vendor_completions.d\")
      execute_process(COMMAND $<TARGET_FILE:nvfp4_program> man --out \"${share}/man/man1\" COMMAND_ERROR_IS_FATAL ANY)
      execute_process(COMMAND $<TARGET_FILE:nvfp4_program> completion bash OUTPUT_FILE \"${share}/bash-completion/completions/nvfp4\" COMMAND_ERROR_IS_FATAL ANY)
      execute_process(COMMAND $<TARGET_FILE:nvfp4_program> completion zsh OUTPUT_FILE \"${share}/zsh/site-functions/_nvfp4\" COMMAND_ERROR_IS_FATAL ANY)
      execute_process(COMMAND $<TARGET_FILE:nvfp4_program> completion fish OUTPUT_FILE \"${share}/fish/vendor_completions.d/nvfp4.fish\" COMMAND_ERROR_IS_FATAL ANY)")
  endif()
endif()

# A header is public unless the comment that opens it says "Internal" or to what it is "private".
foreach(folder emulator golden reference_models)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE ${PROJECT_SOURCE_DIR} ${folder}/*.hpp)
  foreach(header ${headers})
    file(STRINGS ${header} opening LIMIT_COUNT 8 REGEX "^//")
    if(NOT opening MATCHES "Internal|private")
      get_filename_component(where ${header} DIRECTORY)
      install(FILES ${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/nvfp4/${where})
    endif()
  endforeach()
endforeach()
install(FILES ${PROJECT_BINARY_DIR}/generated/nvfp4/version.hpp tools/c_api/nvfp4.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/nvfp4)

install(DIRECTORY golden/ DESTINATION ${CMAKE_INSTALL_DATADIR}/nvfp4/golden
  FILES_MATCHING PATTERN "*.txt" PATTERN "*.json" PATTERN "*.safetensors" PATTERN "io" EXCLUDE PATTERN "CMakeLists.txt" EXCLUDE)

configure_package_config_file(tools/nvfp4-config.cmake.in nvfp4-config.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(nvfp4-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/nvfp4-config.cmake ${PROJECT_BINARY_DIR}/nvfp4-config-version.cmake
  DESTINATION ${package_folder})

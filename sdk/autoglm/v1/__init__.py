"""The generated messages and stubs of the contract, proto/autoglm/v1; never edited by hand."""

"""The TFLite importer's parts: the flatbuffer, the node that a rule sees, and the rules by kind."""

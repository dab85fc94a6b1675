#include "client/cli.h"

int main(int argc, char** argv) { return finetuned::Main(argc, argv); }

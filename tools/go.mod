module github.com/shoalnet/shoal/tools

go 1.26.0

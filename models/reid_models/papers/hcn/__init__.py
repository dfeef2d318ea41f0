"""HCN: hierarchical cross maps over a ResNet."""

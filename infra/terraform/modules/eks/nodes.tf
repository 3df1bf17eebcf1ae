# Two node groups: `system` for what the cluster itself needs, `workload` for the service. Graviton, AL2023.

locals {
  node_groups = {
    system = {
      sizes  = { min = 2, max = 3 }
      taints = { CriticalAddonsOnly = { value = "true", effect = "NO_SCHEDULE" } }
    }
    workload = {
      sizes  = { min = var.workload_nodes.min, max = var.workload_nodes.max }
      taints = {}
    }
  }

  node_policies = toset([
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryPullOnly",
  ])
}

resource "aws_iam_role" "node" {
  name                 = "${var.name}-node"
  permissions_boundary = "arn:aws:iam::aws:policy/PowerUserAccess"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy_attachment" "node" {
  for_each = local.node_policies

  role       = aws_iam_role.node.name
  policy_arn = "arn:aws:iam::aws:policy/${each.value}"
}

resource "aws_launch_template" "node" {
  for_each = local.node_groups

  name_prefix            = "${var.name}-${each.key}-"
  update_default_version = true

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
    # One hop: a pod cannot reach the node's credentials. Pods use Pod Identity.
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = var.node_volume_gib
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = { Name = "${var.name}-${each.key}" }
  }
}

resource "aws_eks_node_group" "this" {
  for_each = local.node_groups

  cluster_name    = aws_eks_cluster.this.name
  node_group_name = each.key
  node_role_arn   = aws_iam_role.node.arn
  subnet_ids      = var.subnet_ids
  ami_type        = "AL2023_ARM_64_STANDARD"
  instance_types  = [var.node_instance_type]
  labels          = { "plumbline/node-group" = each.key }

  scaling_config {
    min_size     = each.value.sizes.min
    desired_size = each.value.sizes.min
    max_size     = each.value.sizes.max
  }

  launch_template {
    id      = aws_launch_template.node[each.key].id
    version = aws_launch_template.node[each.key].latest_version
  }

  update_config {
    max_unavailable = 1
  }

  node_repair_config {
    enabled = true
  }

  dynamic "taint" {
    for_each = each.value.taints
    content {
      key    = taint.key
      value  = taint.value.value
      effect = taint.value.effect
    }
  }

  lifecycle {
    # The cluster autoscaler owns it.
    ignore_changes = [scaling_config[0].desired_size]
  }

  # Nodes without a CNI never become ready; the group would fail after 20 minutes.
  depends_on = [aws_iam_role_policy_attachment.node, aws_eks_addon.before_nodes]
}

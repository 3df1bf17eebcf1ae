# VPC of one environment: three zones, three tiers (public, private, data), flow logs, endpoints.
# When it breaks nothing else can be reached. Tests: tests/network.tftest.hcl.

locals {
  zone_keys = ["a", "b", "c"]
  zones     = { for index, key in local.zone_keys : key => var.az_ids[index] }

  # The first /20 is cut into small public and data subnets; the next three /20 are for pods.
  public_cidrs  = { for index, key in local.zone_keys : key => cidrsubnet(var.cidr, 8, index) }
  data_cidrs    = { for index, key in local.zone_keys : key => cidrsubnet(var.cidr, 8, index + 4) }
  private_cidrs = { for index, key in local.zone_keys : key => cidrsubnet(var.cidr, 4, index + 1) }

  nat_keys = slice(local.zone_keys, 0, var.nat_gateway_count)
  # A zone without its own NAT gateway uses the first one: cheaper, and lost with that zone.
  nat_of_zone = { for key in local.zone_keys : key => contains(local.nat_keys, key) ? key : "a" }
}

resource "aws_vpc" "this" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

# Nobody asked for the default group that AWS makes: emptied, so that a forgotten attachment reaches nothing.
resource "aws_default_security_group" "this" {
  vpc_id  = aws_vpc.this.id
  ingress = []
  egress  = []
  tags    = { Name = "${var.name}-default-empty" }
}

resource "aws_internet_gateway" "this" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = var.name }
}

resource "aws_subnet" "public" {
  for_each = local.zones

  vpc_id                  = aws_vpc.this.id
  availability_zone_id    = each.value
  cidr_block              = local.public_cidrs[each.key]
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.name}-public-${each.key}", "kubernetes.io/role/elb" = "1" }
}

resource "aws_subnet" "private" {
  for_each = local.zones

  vpc_id               = aws_vpc.this.id
  availability_zone_id = each.value
  cidr_block           = local.private_cidrs[each.key]
  tags                 = { Name = "${var.name}-private-${each.key}", "kubernetes.io/role/internal-elb" = "1" }
}

resource "aws_subnet" "data" {
  for_each = local.zones

  vpc_id               = aws_vpc.this.id
  availability_zone_id = each.value
  cidr_block           = local.data_cidrs[each.key]
  tags                 = { Name = "${var.name}-data-${each.key}" }
}

resource "aws_eip" "nat" {
  for_each = toset(local.nat_keys)

  domain = "vpc"
  tags   = { Name = "${var.name}-nat-${each.key}" }
}

resource "aws_nat_gateway" "this" {
  for_each = toset(local.nat_keys)

  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = { Name = "${var.name}-${each.key}" }

  depends_on = [aws_internet_gateway.this]
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-public" }
}

resource "aws_route" "public_internet" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this.id
}

resource "aws_route_table_association" "public" {
  for_each = aws_subnet.public

  subnet_id      = each.value.id
  route_table_id = aws_route_table.public.id
}

resource "aws_route_table" "private" {
  for_each = local.zones

  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-private-${each.key}" }
}

resource "aws_route" "private_nat" {
  for_each = local.zones

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[local.nat_of_zone[each.key]].id
}

resource "aws_route_table_association" "private" {
  for_each = aws_subnet.private

  subnet_id      = each.value.id
  route_table_id = aws_route_table.private[each.key].id
}

# No default route: what keeps data does not reach the internet, nor is it reached.
resource "aws_route_table" "data" {
  vpc_id = aws_vpc.this.id
  tags   = { Name = "${var.name}-data" }
}

resource "aws_route_table_association" "data" {
  for_each = aws_subnet.data

  subnet_id      = each.value.id
  route_table_id = aws_route_table.data.id
}
